// Descriptions of modules: the .meta.json beside a program, or else constants in its
// Python source.
package libdir

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// maxMeta bounds what is read of a description or of a source, in bytes.
const maxMeta = 16 << 20

// read finds a module and its description. Both are nil when there is no program.
func (d *Dir) read(kind Kind, name string) (*Module, error) {
	p, err := d.program(kind, name)
	if err != nil || p == "" {
		return nil, err
	}
	m := &Module{Kind: kind, Name: name, Path: p}
	b, err := readBounded(p + metaSuffix)
	switch {
	case err == nil:
		if err := m.fromJSON(b); err != nil {
			return nil, fmt.Errorf("%s/%s%s: %w", kind, name, metaSuffix, err)
		}
	case errors.Is(err, fs.ErrNotExist):
		if b, err = readBounded(p); err != nil {
			return nil, err
		}
		if err := m.fromPython(b); err != nil {
			return nil, fmt.Errorf("%s/%s: %w", kind, name, err)
		}
	default:
		return nil, err
	}
	return m, nil
}

func readBounded(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Size() > maxMeta {
		return nil, fmt.Errorf("%s is too large to be read", path)
	}
	return os.ReadFile(path)
}

// fromJSON reads a .meta.json. What upstream's schema of these files refuses is
// refused here too: summary and description have to be there, and one schema.
func (m *Module) fromJSON(b []byte) error {
	var meta struct {
		Summary      *string          `json:"summary"`
		Description  *[]string        `json:"description"`
		Capabilities []string         `json:"capabilities"`
		Schema       *json.RawMessage `json:"schema"`
		Schema2      *json.RawMessage `json:"schema_2"`
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&meta); err != nil {
		return err
	}
	switch {
	case meta.Summary == nil:
		return errors.New("it has no summary")
	case meta.Description == nil:
		return errors.New("it has no description")
	case meta.Schema == nil && meta.Schema2 == nil:
		return errors.New("it has neither schema nor schema_2")
	}
	for key, s := range map[string]*json.RawMessage{"schema": meta.Schema, "schema_2": meta.Schema2} {
		if s != nil && !bytes.HasPrefix(bytes.TrimSpace(*s), []byte("{")) {
			return fmt.Errorf("%s is no object", key)
		}
	}
	m.Summary, m.Description = *meta.Summary, strings.Join(*meta.Description, "\n")
	m.Capabilities = capabilities(meta.Capabilities)
	if meta.Schema != nil {
		m.Schema = *meta.Schema
	}
	if meta.Schema2 != nil {
		m.Schema2 = *meta.Schema2
	}
	return nil
}

// fromPython reads the constants of a Python source. A program in another language
// has none.
func (m *Module) fromPython(b []byte) error {
	if bytes.IndexByte(b[:min(len(b), 8000)], 0) >= 0 {
		return nil // a compiled program
	}
	src := constants(string(b))
	m.Summary, m.Description, _ = strings.Cut(src.doc, "\n")
	m.Capabilities = capabilities(src.lists["CAPABILITIES"])
	for _, c := range []struct {
		name string
		into *[]byte
	}{{"SCHEMA", &m.Schema}, {"SCHEMA_2", &m.Schema2}} {
		text, ok := src.strings[c.name]
		if !ok {
			continue
		}
		// The constant has no braces around it.
		*c.into = []byte("{" + text + "}")
		var syntax *json.SyntaxError
		var any map[string]json.RawMessage
		if err := json.Unmarshal(*c.into, &any); errors.As(err, &syntax) {
			line := 1 + bytes.Count((*c.into)[:min(int(syntax.Offset), len(*c.into))], []byte("\n"))
			return fmt.Errorf("line %d of its constant %s: %w", line, c.name, err)
		} else if err != nil {
			return fmt.Errorf("its constant %s: %w", c.name, err)
		}
	}
	return nil
}

// capabilities are the names without "CAP_", sorted, each once.
func capabilities(names []string) []string {
	var out []string
	for _, n := range names {
		out = append(out, strings.TrimPrefix(n, "CAP_"))
	}
	slices.Sort(out)
	return slices.Compact(out)
}
