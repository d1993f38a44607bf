// Package wire is what the host and the agent say to each other: one packet per
// message on a SOCK_SEQPACKET socket, the JSON of the message in a memfd, so that
// it can have any size, and further files after it. A message is a request to the
// agent or an answer of it.
package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// AgentName is the name that the program is started by when it is the agent.
const AgentName = "osbuild-star-agent"

// VarDirs is where the agent has the directory on disk that a Prepare request attaches:
// in it each program gets one of its own, for what it writes to /var.
const VarDirs = "/run/osbuild/.var"

// The kinds of requests.
const (
	Prepare = "prepare" // set up the build root, by its runner; once
	Run     = "run"     // run one program in namespaces of its own
	Cancel  = "cancel"  // end the program of the request ID
)

// Request is a message to the agent.
type Request struct {
	Kind string `json:"kind"`
	ID   uint64 `json:"id"`

	Runner string `json:"runner,omitempty"`
	Arch   string `json:"arch,omitempty"`

	// Program is what a Run request starts. In a Prepare request it is a runner of the
	// user's own, Argv[0], with what is to be attached for it; Runner is its name.
	Program *Program `json:"program,omitempty"`
	// Workers has, in a Prepare request, the privileges that programs usually keep, and
	// what is attached for all of them. The log is the first file.
	Workers *Program `json:"workers,omitempty"`
}

// Program is what a Run request starts.
type Program struct {
	// Native is the name of a stage that is part of the agent; without it Argv is
	// started.
	Native string   `json:"native,omitempty"`
	Argv   []string `json:"argv,omitempty"`

	Arguments json.RawMessage `json:"arguments,omitempty"` // of a native stage, upstream's form
	Env       []string        `json:"env,omitempty"`
	Caps      []string        `json:"caps"` // kept in the bounding set
	NewPrivs  bool            `json:"new_privs,omitempty"`
	Arch      string          `json:"arch,omitempty"` // of the tree
	Terminal  bool            `json:"terminal,omitempty"`

	// Attach says where the mounts among the files go, by index.
	Attach []Attach `json:"attach,omitempty"`
	Log    int      `json:"log"` // index of the file that takes its output
	Stdin  int      `json:"stdin,omitempty"`
	Stderr int      `json:"stderr,omitempty"` // index of the file for standard error; 0: the log
}

// Attach puts the detached mount File at Target, below /run/osbuild or /dev.
type Attach struct {
	File   int    `json:"file"`
	Target string `json:"target"`
	IsFile bool   `json:"is_file,omitempty"` // the mount is of a file, e.g. a device node
}

// Answer is a message of the agent. Every request has exactly one, but Cancel.
type Answer struct {
	ID       uint64          `json:"id"`
	Ready    bool            `json:"ready,omitempty"` // the first message of all
	Status   int             `json:"status"`          // exit status; 128+N for signal N
	Signal   string          `json:"signal,omitempty"`
	Err      *Error          `json:"error,omitempty"`
	Metadata json.RawMessage `json:"metadata,omitempty"`
	MaxRSS   int64           `json:"max_rss,omitempty"` // bytes
	CPU      int64           `json:"cpu,omitempty"`     // user and system time, ns
}

// Error is a failure that is told with a hint.
type Error struct {
	Msg  string `json:"msg"`
	Hint string `json:"hint,omitempty"`
}

func (e *Error) Error() string { return e.Msg }

// Send sends a message with files. It does not close them.
func Send(sock int, v any, files ...*os.File) error {
	if len(files) >= maxFiles {
		return fmt.Errorf("a message with %d files; %d is the most", len(files), maxFiles-1)
	}
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	mem, err := unix.MemfdCreate("message", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("memfd_create: %w", err)
	}
	defer unix.Close(mem)
	for b := data; len(b) > 0; {
		n, err := unix.Write(mem, b)
		if err != nil {
			return fmt.Errorf("writing a message: %w", err)
		}
		b = b[n:]
	}
	fds := []int{mem}
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	for {
		err := unix.Sendmsg(sock, []byte{1}, unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// maxFiles is the kernel's limit of descriptors in one packet.
const maxFiles = 253

// Receive waits for a message, decodes it into v, and returns the files that came
// with it. io.EOF: the other side is gone.
func Receive(sock int, v any) ([]*os.File, error) {
	buf, oob := make([]byte, 16), make([]byte, unix.CmsgSpace(4*maxFiles))
	var n, oobn int
	for {
		var err error
		n, oobn, _, _, err = unix.Recvmsg(sock, buf, oob, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			if errors.Is(err, unix.ECONNRESET) {
				return nil, io.EOF
			}
			return nil, fmt.Errorf("receiving: %w", err)
		}
		break
	}
	if n == 0 {
		return nil, io.EOF
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return nil, fmt.Errorf("receiving files: %w", err)
	}
	var files []*os.File
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), fmt.Sprintf("received-%d", len(files))))
		}
	}
	if len(files) == 0 {
		return nil, errors.New("receiving: a message without content")
	}
	mem := files[0]
	defer mem.Close()
	if err := decodeFile(mem, v); err != nil {
		CloseAll(files[1:])
		return nil, err
	}
	return files[1:], nil
}

func decodeFile(f *os.File, v any) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if err := json.NewDecoder(io.NewSectionReader(f, 0, st.Size())).Decode(v); err != nil {
		return fmt.Errorf("decoding a message: %w", err)
	}
	return nil
}

// CloseAll closes files.
func CloseAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
