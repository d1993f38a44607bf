// Files of the tree: links followed inside it, reading, writing and replacing.
package stages

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many links one path may go through, as in the kernel.
const maxLinks = 40

// Resolve turns a path of the image into one of the build root, following links
// the way the image itself will: an absolute link starts at the tree, and ".."
// never leads above it. What does not exist is taken as written.
func (c *Context) Resolve(p string) (string, error) {
	return resolveIn(c.Tree, path.Clean("/"+p), true)
}

// ResolveLocation is [Context.Locate] with links followed inside the tree, mount
// or input that the location names. A link that is the last part is followed only
// if last is set, or a slash comes after it.
func (c *Context) ResolveLocation(loc string, last bool) (string, error) {
	root, p, err := c.locate(loc)
	if err != nil {
		return "", err
	}
	contents := strings.HasSuffix(p, "/")
	out, err := resolveIn(root, path.Clean("/"+p), last || contents)
	if err != nil {
		return "", fmt.Errorf("location %q: %w", loc, err)
	}
	if contents {
		out += "/."
	}
	return out, nil
}

// resolveIn follows the links of p as if root were the root directory; the last
// part only if last is set.
func resolveIn(root, p string, last bool) (string, error) {
	var done []string
	rest := strings.Split(p, "/")
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			done = done[:max(0, len(done)-1)]
			continue
		}
		if len(rest) == 0 && !last {
			done = append(done, name)
			break
		}
		to, err := os.Readlink(filepath.Join(root, filepath.Join(done...), name))
		switch {
		case err == nil:
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
			done = append(done, name) // no link, or nothing
			continue
		default:
			return "", err
		}
		if links++; links > maxLinks {
			return "", Errorf("%s: too many links", p)
		}
		if strings.HasPrefix(to, "/") {
			done = nil
		}
		rest = append(strings.Split(to, "/"), rest...)
	}
	return filepath.Join(root, filepath.Join(done...)), nil
}

// ReadText reads a text file of the image, with all kinds of line ends as "\n".
// The error wraps [os.ErrNotExist] where it is not there.
func (c *Context) ReadText(p string) (string, error) {
	at, err := c.Resolve(p)
	if err != nil {
		return "", err
	}
	return readText(at)
}

func readText(at string) (string, error) {
	b, err := os.ReadFile(at)
	if err != nil {
		return "", err
	}
	return strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(b)), nil
}

// WriteFile sets the content of a file of the image. A file that is there keeps
// its owner and mode, and a link to it stays one; a new one has mode 0644, in
// directories that are made where they are missing.
func (c *Context) WriteFile(p, text string) error {
	at, err := c.Resolve(p)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	return os.WriteFile(at, []byte(text), 0o644)
}

// ReplaceFile makes a new file of mode 0644 in place of the file or link that is
// there, and missing directories above it.
func (c *Context) ReplaceFile(p, text string) error {
	at, err := c.vacate(p)
	if err != nil {
		return err
	}
	return os.WriteFile(at, []byte(text), 0o644)
}

// vacate removes the file or link p of the image, if it is there, makes the
// directory that it belongs in, and returns its path in the build root.
func (c *Context) vacate(p string) (string, error) {
	p = path.Clean("/" + p)
	dir, err := c.Resolve(path.Dir(p))
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	at := filepath.Join(dir, path.Base(p))
	switch err := unix.Unlink(at); {
	case err == nil:
		c.Logf("replacing %s", p)
	case !errors.Is(err, unix.ENOENT):
		return "", &os.PathError{Op: "remove", Path: at, Err: err}
	}
	return at, nil
}

// rewriteFile sets the content of a file by a new one of the given mode that takes
// its name.
func rewriteFile(at, text string, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(at), "."+filepath.Base(at)+".*")
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err == nil {
		err = f.Chmod(mode)
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), at)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// confFiles lists the *.conf files of a directory, sorted, without hidden ones.
func confFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if n := e.Name(); strings.HasSuffix(n, ".conf") && !strings.HasPrefix(n, ".") {
			out = append(out, filepath.Join(dir, n))
		}
	}
	return out, nil
}
