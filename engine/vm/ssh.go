// Logging in by ssh: a key that lives as long as the machine, waiting for the
// server, and the host's ssh client.

package vm

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// SSHOptions say how to log in.
type SSHOptions struct {
	User     string   // "" = root
	Identity string   // a private key that the image knows; "" = one is made and handed to the guest
	Command  []string // what to run; empty = a shell
	Options  []string // further arguments for ssh, before the host

	Stdin          io.Reader // of ssh; an *os.File that is a terminal makes the session interactive
	Stdout, Stderr io.Writer
}

// SSH starts a machine, waits until an ssh server answers in it, runs the host's
// ssh client and ends the machine. It returns the exit status of ssh, which is
// that of the command, or 255 when ssh could not log in; see the package
// comment for what an image needs. Errors are those of [Start] and a [*Failure]
// when the machine does not come up.
func SSH(ctx context.Context, cfg Config, opt SSHOptions) (status int, err error) {
	cfg.SSH = true
	if opt.User == "" {
		opt.User = "root"
	}
	key, err := prepareKey(&cfg, opt.User, opt.Identity)
	if err != nil {
		return 0, err
	}
	defer key.close()
	cfg.unattended = true
	m, err := Start(ctx, cfg)
	if err != nil {
		return 0, err
	}
	defer m.Close()
	if err := m.WaitSSH(ctx); err != nil {
		return 0, err
	}
	return m.runSSH(ctx, key, opt)
}

// WaitSSH waits until an ssh server answers in a machine with [Config.SSH]. It
// fails as [Machine.WaitFor] does.
func (m *Machine) WaitSSH(ctx context.Context) error {
	if m.ssh == 0 {
		return &ConfigError{Field: "SSH", Msg: "the machine has no port forwarded to ssh"}
	}
	probing, cancel := context.WithCancel(ctx)
	defer cancel()
	answered := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for probing.Err() == nil {
			if sshAnswers(probing, m.SSHAddr()) {
				close(answered)
				return
			}
			select {
			case <-probing.Done():
			case <-time.After(250 * time.Millisecond):
			}
		}
	}()
	defer func() { cancel(); <-ended }()
	return m.await(ctx, "an ssh server", 0, func() bool {
		select {
		case <-answered:
			return true
		default:
			return false
		}
	})
}

// sshAnswers tells if a server greets. A connection alone says nothing: QEMU
// accepts it before it knows if the guest listens.
func sshAnswers(ctx context.Context, addr string) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return false
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })()
	r := bufio.NewReader(io.LimitReader(conn, 8<<10))
	for { // a server may say other lines first: RFC 4253, section 4.2
		line, err := r.ReadString('\n')
		if strings.HasPrefix(line, "SSH-2.0-") || strings.HasPrefix(line, "SSH-1.99-") {
			return true
		}
		if err != nil {
			return false
		}
	}
}

// runSSH runs the ssh client in the foreground of the caller's terminal.
func (m *Machine) runSSH(ctx context.Context, key *sshKey, opt SSHOptions) (int, error) {
	host, port, err := net.SplitHostPort(m.SSHAddr())
	if err != nil {
		return 0, fmt.Errorf("ssh: %w", err)
	}
	args := []string{
		"-F", "/dev/null", "-p", port, "-l", opt.User, "-i", key.path,
		"-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none",
		"-o", "UserKnownHostsFile=/dev/null", "-o", "GlobalKnownHostsFile=/dev/null",
		"-o", "StrictHostKeyChecking=no", "-o", "UpdateHostKeys=no", "-o", "LogLevel=ERROR",
		"-o", "ConnectTimeout=60",
		// Of the host's own identity nothing shows in the guest.
		"-o", "ForwardAgent=no", "-o", "ForwardX11=no",
	}
	args = append(args, opt.Options...)
	args = append(args, host)
	if len(opt.Command) > 0 {
		args = append(args, "--")
		args = append(args, opt.Command...)
	}
	cmd := exec.CommandContext(ctx, "ssh", args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = opt.Stdin, opt.Stdout, opt.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 2 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // see Machine.spawn
	defer runtime.UnlockOSThread()
	err = cmd.Run()
	if ctx.Err() != nil {
		return 0, fmt.Errorf("ssh: %w", ctx.Err())
	}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		return exit.ExitCode(), nil
	default:
		return 0, fmt.Errorf("ssh: %w", err)
	}
}

// RunSSH runs a command in the guest by ssh, with no input, and returns what it
// wrote to standard output and error together, and its exit status. The machine
// was started with the public key of identity among those the guest takes.
func (m *Machine) runSSHCommand(ctx context.Context, key *sshKey, user, command string) (string, int, error) {
	var out cappedBuffer
	status, err := m.runSSH(ctx, key, SSHOptions{
		User: user, Command: []string{command}, Options: []string{"-o", "BatchMode=yes", "-T"}, Stdout: &out, Stderr: &out,
	})
	return out.String(), status, err
}

// sshKey is a private key in a file.
type sshKey struct {
	path string
	file *os.File // nil for a user's own key
}

func (k *sshKey) close() {
	if k.file != nil {
		k.file.Close()
	}
}

// prepareKey takes the user's key, or makes one and puts its public half in cfg.
// The private half is in anonymous memory; ssh reads it through /proc, as it
// closes the descriptors it inherits.
func prepareKey(cfg *Config, user, identity string) (*sshKey, error) {
	if identity != "" {
		if _, err := os.Stat(identity); err != nil {
			return nil, &ConfigError{Field: "Identity", Msg: fmt.Sprintf("the key %s: %v", identity, errors.Unwrap(err)), Hint: "name the file of a private key"}
		}
		return &sshKey{path: identity}, nil
	}
	if cfg.Persist {
		return nil, &ConfigError{Field: "Persist", Msg: "a key made for this session would stay in the image", Hint: "name a key that the image knows"}
	}
	c := *cfg
	c.AuthorizedKey = ""
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	if !machines[c.Arch].hasSMBIOS(c.Firmware) {
		return nil, &ConfigError{Field: "Arch", Msg: "a key cannot be handed to a machine of " + c.Arch, Hint: "name a key that the image knows"}
	}
	private, public, err := generateKey()
	if err != nil {
		return nil, fmt.Errorf("make an ssh key: %w", err)
	}
	file, err := anonymousFile("ssh-key", private)
	if err != nil {
		return nil, fmt.Errorf("make an ssh key: %w", err)
	}
	if err := file.Chmod(0o600); err != nil { // ssh refuses keys that others can read
		file.Close()
		return nil, fmt.Errorf("make an ssh key: %w", err)
	}
	cfg.AuthorizedKey, cfg.SSHUser = public, user
	return &sshKey{path: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), file.Fd()), file: file}, nil
}

// generateKey makes an ECDSA key on P-256, which every OpenSSH takes, one in
// FIPS mode too: the private half in PEM, the public as a line of
// authorized_keys (RFC 5656, section 3.1).
func generateKey() (private []byte, public string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, "", err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, "", err
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		return nil, "", err
	}
	var blob []byte
	for _, part := range [][]byte{[]byte("ecdsa-sha2-nistp256"), []byte("nistp256"), point} {
		blob = binary.BigEndian.AppendUint32(blob, uint32(len(part)))
		blob = append(blob, part...)
	}
	private = pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
	return private, "ecdsa-sha2-nistp256 " + base64.StdEncoding.EncodeToString(blob) + " osbuild-star", nil
}

// cappedBuffer keeps the first maxOutput bytes.
type cappedBuffer struct {
	buf  bytes.Buffer
	over bool
}

func (b *cappedBuffer) Write(p []byte) (int, error) {
	if room := maxOutput - b.buf.Len(); len(p) > room {
		b.buf.Write(p[:max(room, 0)])
		b.over = true
	} else {
		b.buf.Write(p)
	}
	return len(p), nil
}

func (b *cappedBuffer) String() string {
	s := strings.ReplaceAll(b.buf.String(), "\r\n", "\n")
	if b.over {
		s += "\n[more output was left out]\n"
	}
	return s
}
