// Files of sections and "Key=value" lines: units of systemd, their drop-ins, and
// the configuration of its services.
package stages

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// unitFile is the content of such a file: section → key → value, in the order of
// the options. A value is a string, a number or a bool; a list stands for as many
// lines as it has items. The items of a list "Environment" are objects with the
// members "key" and "value".
type unitFile orderedMap[orderedMap[json.RawMessage]]

// UnmarshalJSON reads the sections.
func (u *unitFile) UnmarshalJSON(b []byte) error {
	return (*orderedMap[orderedMap[json.RawMessage]])(u).UnmarshalJSON(b)
}

// has says whether there is a section of that name.
func (u unitFile) has(section string) bool {
	return slices.ContainsFunc(u, func(s member[orderedMap[json.RawMessage]]) bool { return s.Name == section })
}

// text returns the file. Each section ends with an empty line. A line that a list
// makes twice is written once.
func (u unitFile) text() (string, error) {
	var out strings.Builder
	for _, section := range u {
		fmt.Fprintf(&out, "[%s]\n", section.Name)
		seen := map[string]bool{}
		for _, kv := range section.Value {
			lines, err := unitLines(kv.Name, kv.Value)
			if err != nil {
				return "", &Error{Msg: fmt.Sprintf("section %s: %s: %v", section.Name, kv.Name, err)}
			}
			for _, line := range lines {
				if !seen[line] {
					out.WriteString(line + "\n")
				}
				seen[line] = true
			}
		}
		out.WriteByte('\n')
	}
	return out.String(), nil
}

// unitLines returns the lines of one key.
func unitLines(key string, value json.RawMessage) ([]string, error) {
	if !bytes.HasPrefix(value, []byte("[")) {
		s, err := scalar(value)
		if err != nil {
			return nil, err
		}
		// The line goes on where the next begins with white space.
		return []string{key + "=" + strings.ReplaceAll(s, "\n", "\n\t")}, nil
	}
	var items []json.RawMessage
	if err := json.Unmarshal(value, &items); err != nil {
		return nil, err
	}
	var lines []string
	for _, item := range items {
		if key != "Environment" {
			s, err := scalar(item)
			if err != nil {
				return nil, err
			}
			lines = append(lines, key+"="+s)
			continue
		}
		var v struct {
			Key   *string         `json:"key"`
			Value json.RawMessage `json:"value"`
		}
		if err := json.Unmarshal(item, &v); err != nil {
			return nil, err
		}
		if v.Key == nil || v.Value == nil {
			return nil, fmt.Errorf("a variable needs both a \"key\" and a \"value\"")
		}
		s, err := scalar(v.Value)
		if err != nil {
			return nil, err
		}
		lines = append(lines, key+`="`+*v.Key+"="+s+`"`)
	}
	return lines, nil
}

// environmentSchema is the schema of an item of a list "Environment".
const environmentSchema = `{
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "key": {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*", "description": "name of the variable"},
    "value": {"type": "string", "description": "its value"}
  }
}`

// unitDir is the directory of units of a type, below systemd's own.
func unitDir(unitType string) string {
	if unitType == "global" {
		return "user"
	}
	return "system"
}

// scalar writes a JSON value the way upstream does, which is Python's: True and
// False begin with a capital letter (systemd takes them in any case), numbers are
// as they stand.
func scalar(value json.RawMessage) (string, error) {
	d := json.NewDecoder(bytes.NewReader(value))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return "", err
	}
	switch v := v.(type) {
	case string:
		return v, nil
	case bool:
		if v {
			return "True", nil
		}
		return "False", nil
	case json.Number:
		return v.String(), nil
	}
	return "", fmt.Errorf("%.40s is not a string, a number or a bool", value)
}
