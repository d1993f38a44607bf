// source.url, source.inline, file and glob: content by its checksum.

package builtins

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	rulefile "github.com/osbuild-star/osbuild-star/starlark"
)

// maxInline is the size, in bytes, up to which a file of the workspace is written
// into the manifest. A larger one is named there by its path.
const maxInline = 1 << 20

// sourceValue is content that a stage can read. Exactly one of url, data and path
// says where it is; data also holds small files of the workspace.
type sourceValue struct {
	value
	id      string // "sha256:…"
	url     string
	mirrors []string // tried after url
	data    []byte
	path    string // of a file of the workspace, absolute
}

// CompareSameType makes sources of the same content equal.
func (v *sourceValue) CompareSameType(op syntax.Token, y starlark.Value, _ int) (bool, error) {
	return equality(op, v, y, v.id == y.(*sourceValue).id)
}

// Hash goes with CompareSameType.
func (v *sourceValue) Hash() (uint32, error) { return starlark.String(v.id).Hash() }

func newSource(text, name, sum string) *sourceValue {
	id := "sha256:" + sum
	return &sourceValue{id: id, value: value{
		typ: "source", text: text,
		attrs: starlark.StringDict{"id": starlark.String(id), "sha256": starlark.String(sum), "name": starlark.String(name)},
	}}
}

const sourceAttrs = " Its `id` (\"sha256:…\") is the name that the file has in an input, `sha256` the checksum alone, `name` the file's own name."

var sourceTable = []Builtin{
	{
		Name:   "source.url",
		Doc:    "A file to fetch." + sourceAttrs,
		Result: "source",
		Params: []Param{
			{Name: "url", Type: "string | list[string]", Doc: "Where it is: https, http or file. Of several, the next is tried when one fails."},
			{Name: "sha256", Type: "string", Doc: "Its SHA-256 checksum in hexadecimal; \"sha256:\" may stand before it."},
		},
		run: runSourceURL,
	},
	{
		Name:   "source.inline",
		Doc:    "A file whose content stands in the rule file." + sourceAttrs,
		Result: "source",
		Params: []Param{{Name: "text", Type: "string | bytes", Doc: "The content."}},
		run: func(c *call) (starlark.Value, error) {
			var data []byte
			switch v := c.args["text"].(type) {
			case starlark.String:
				data = []byte(v)
			case starlark.Bytes:
				data = []byte(v)
			}
			sum := sha256.Sum256(data)
			s := newSource("<source inline "+hex.EncodeToString(sum[:6])+">", "", hex.EncodeToString(sum[:]))
			s.data = data
			return s, nil
		},
	},
	{
		Name:   "file",
		Doc:    "A file of the workspace." + sourceAttrs,
		Result: "source",
		Params: []Param{{Name: "label", Type: "string", Doc: `Its label, "//images:motd", or its path in the package, "motd".`}},
		run: func(c *call) (starlark.Value, error) {
			return c.fileSource("label", c.str("label"))
		},
	},
	{
		Name:   "glob",
		Doc:    "The files of this package whose paths match, sorted: a list of what `file` returns. \"*\" and \"?\" do not match \"/\", \"**\" does.",
		Result: "list[source]",
		Params: []Param{
			{Name: "include", Type: "list[string]", Doc: `Patterns: ["*.conf", "units/**/*.service"].`},
			{Name: "exclude", Type: "list[string]", Default: "[]", Doc: "Patterns of what to leave out."},
			{Name: "allow_empty", Type: "bool", Default: "False", Doc: "Without it, no match is an error.", Keyword: true},
		},
		run: func(c *call) (starlark.Value, error) {
			scope, err := c.scope()
			if err != nil {
				return nil, err
			}
			names, err := scope.Glob(c.strs("include"), c.strs("exclude"), c.bool("allow_empty"))
			if err != nil {
				return nil, c.wrap("include", err)
			}
			list := make([]starlark.Value, len(names))
			for i, name := range names {
				if list[i], err = c.fileSource("include", name); err != nil {
					return nil, err
				}
			}
			return starlark.NewList(list), nil
		},
	},
}

// scope is what the loader knows about the file that is being run.
func (c *call) scope() (*rulefile.Scope, error) {
	if s := rulefile.FromThread(c.t); s != nil {
		return s, nil
	}
	return nil, fmt.Errorf("%s is for rule files", c.b.Name)
}

// wrap gives an error of the loader the position of an argument. One that has a
// position already keeps it.
func (c *call) wrap(arg string, err error) error {
	e, ok := errors.AsType[*rulefile.Error](err)
	switch {
	case !ok:
		return c.fail(arg, "", "%v", err)
	case e.Pos.IsValid():
		return err
	}
	return c.fail(arg, e.Hint, "%s", e.Msg)
}

// fileSource reads a file of the workspace: all of it goes through the checksum,
// only a small one stays in memory.
func (c *call) fileSource(arg, label string) (starlark.Value, error) {
	scope, err := c.scope()
	if err != nil {
		return nil, err
	}
	var (
		name string
		r    io.Reader
	)
	if strings.HasPrefix(label, "@") {
		var data []byte
		name, data, err = scope.ReadFile(label)
		r = bytes.NewReader(data)
	} else {
		var f *os.File
		name, f, err = scope.OpenFile(label)
		r = f
		defer f.Close() //nolint:errcheck // read only, and Close on nil is an error only
	}
	if err != nil {
		return nil, c.wrap(arg, err)
	}
	h := sha256.New()
	var head bytes.Buffer
	n, err := io.Copy(h, io.TeeReader(r, &limitedWriter{&head, maxInline}))
	if err != nil {
		return nil, c.fail(arg, "", "reading %s: %v", label, err)
	}
	own := strings.TrimPrefix(label[strings.LastIndex(label, ":")+1:], "/")
	s := newSource(fmt.Sprintf("file(%q)", label), own, hex.EncodeToString(h.Sum(nil)))
	if !strings.HasPrefix(name, "@") { // a file of the library is inside of this program
		s.path = filepath.Join(c.p.cfg.Workspace.Root, filepath.FromSlash(name))
	}
	if n <= maxInline {
		s.data = head.Bytes()
		if s.data == nil {
			s.data = []byte{}
		}
	}
	return s, nil
}

// limitedWriter keeps the first max bytes and swallows the rest.
type limitedWriter struct {
	w   *bytes.Buffer
	max int
}

func (l *limitedWriter) Write(p []byte) (int, error) {
	l.w.Write(p[:min(len(p), l.max-l.w.Len())])
	return len(p), nil
}

var hexSum = regexp.MustCompile(`^(sha256:)?[0-9a-f]{64}$`)

func runSourceURL(c *call) (starlark.Value, error) {
	sum := c.str("sha256")
	urls := []string{}
	switch v := c.args["url"].(type) {
	case starlark.String:
		urls = append(urls, string(v))
	default:
		urls = c.strs("url")
	}
	if len(urls) == 0 {
		return nil, c.fail("url", "", "the list of URLs is empty")
	}
	name := ""
	for _, raw := range urls {
		u, err := url.Parse(raw)
		if err != nil || !u.IsAbs() || u.Scheme != "file" && u.Host == "" {
			return nil, c.fail("url", "for a file of the workspace write file(\"name\")", "%q is not a URL", raw)
		}
		switch u.Scheme {
		case "http", "https", "file":
		default:
			return nil, c.fail("url", "use https, http or file", "URLs of scheme %q cannot be fetched", u.Scheme)
		}
		if name == "" {
			name = path.Base(u.Path)
		}
	}
	if !hexSum.MatchString(sum) {
		return nil, c.fail("sha256", "64 lower-case hexadecimal digits, as sha256sum prints them", "%q is not a SHA-256 checksum", sum)
	}
	s := newSource(fmt.Sprintf("source.url(%q)", urls[0]), name, strings.TrimPrefix(sum, "sha256:"))
	s.url, s.mirrors = urls[0], urls[1:]
	return s, nil
}

// item is how the source stands in a manifest: the source's type, and the item.
func (v *sourceValue) item() (typ string, item any) {
	switch {
	case v.url != "" && len(v.mirrors) > 0:
		mirrors := make([]any, len(v.mirrors))
		for i, m := range v.mirrors {
			mirrors[i] = m
		}
		return "org.osbuild.curl", map[string]any{"url": v.url, "mirrors": mirrors}
	case v.url != "":
		return "org.osbuild.curl", v.url
	case v.data != nil || v.path == "":
		return "org.osbuild.inline", map[string]any{
			"encoding": "base64",
			"data":     base64.StdEncoding.EncodeToString(v.data),
		}
	}
	return "org.osbuild.curl", (&url.URL{Scheme: "file", Path: v.path}).String()
}
