// JSON values whose members keep their order, and lists and objects whose members
// may have more in them than a stage knows.
package stages

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// orderedMap is a JSON object in the order of its text, which decides what a stage
// does first and which line comes first in a file. A name that comes twice has its
// first place and its last value. Members of T that are not known are allowed.
type orderedMap[T any] []member[T]

type member[T any] struct {
	Name  string
	Value T
}

// UnmarshalJSON reads an object.
func (m *orderedMap[T]) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	start, err := d.Token()
	if err != nil {
		return err
	}
	if start == nil { // null
		return nil
	}
	if start != json.Delim('{') {
		return fmt.Errorf("%.40s is not an object", b)
	}
	*m = nil
	at := map[string]int{}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		e := member[T]{Name: name.(string)} // a decoder gives no other names
		if err := d.Decode(&e.Value); err != nil {
			return fmt.Errorf("%s: %w", e.Name, err)
		}
		if i, dup := at[e.Name]; dup {
			(*m)[i] = e
			continue
		}
		at[e.Name] = len(*m)
		*m = append(*m, e)
	}
	_, err = d.Token()
	return err
}

// looseList is a list of objects in which members of T that are not known are
// allowed: upstream's schemas allow them in some lists.
type looseList[T any] []T

// UnmarshalJSON reads a list.
func (l *looseList[T]) UnmarshalJSON(b []byte) error {
	return json.Unmarshal(b, (*[]T)(l))
}
