// From Starlark's values to the plain data of a manifest, and back.

package builtins

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strconv"

	"github.com/osbuild-star/osbuild-star/manifest"
	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"
)

// maxDepth bounds how deep the options of a stage nest: a list can hold itself.
const maxDepth = 100

// toPlain turns a value into what encoding/json would make of it with UseNumber.
// at names the value in an error. A struct becomes an object.
func toPlain(at string, v starlark.Value) (any, error) { return plain(at, v, 0) }

func plain(at string, v starlark.Value, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("%s nests deeper than %d levels", at, maxDepth)
	}
	switch v := v.(type) {
	case starlark.NoneType:
		return nil, nil
	case starlark.Bool:
		return bool(v), nil
	case starlark.String:
		return string(v), nil
	case starlark.Int:
		return json.Number(v.String()), nil
	case starlark.Float:
		s := v.String()
		if !json.Valid([]byte(s)) { // inf, nan
			return nil, fmt.Errorf("%s is %s, which JSON cannot hold", at, s)
		}
		return json.Number(s), nil
	case *starlark.Dict:
		obj := make(map[string]any, v.Len())
		for _, kv := range v.Items() {
			key, ok := kv[0].(starlark.String)
			if !ok {
				return nil, fmt.Errorf("a key of %s wants string, got %s", at, describeType(kv[0]))
			}
			x, err := plain(at+"["+key.String()+"]", kv[1], depth+1)
			if err != nil {
				return nil, err
			}
			obj[string(key)] = x
		}
		return obj, nil
	case *starlarkstruct.Struct:
		obj := map[string]any{}
		for _, name := range v.AttrNames() {
			field, err := v.Attr(name)
			if err != nil {
				return nil, err
			}
			if obj[name], err = plain(at+"."+name, field, depth+1); err != nil {
				return nil, err
			}
		}
		return obj, nil
	case starlark.Indexable: // list, tuple, range
		list := make([]any, v.Len())
		for i := range list {
			x, err := plain(fmt.Sprintf("%s[%d]", at, i), v.Index(i), depth+1)
			if err != nil {
				return nil, err
			}
			list[i] = x
		}
		return list, nil
	case *starlark.Set:
		return nil, fmt.Errorf("%s is a set, which has no order: write sorted(%s)", at, at)
	}
	return nil, fmt.Errorf("%s is a %s, which cannot be an option of a stage", at, v.Type())
}

// appendOrdered appends a value that toPlain accepts as JSON, the members of dicts
// in the order in which they were written.
func appendOrdered(b []byte, v starlark.Value) []byte {
	sep := func(i int) {
		if i > 0 {
			b = append(b, ',')
		}
	}
	switch v := v.(type) {
	case *starlark.Dict:
		b = append(b, '{')
		for i, kv := range v.Items() {
			sep(i)
			b = append(appendOrdered(b, kv[0]), ':')
			b = appendOrdered(b, kv[1])
		}
		return append(b, '}')
	case *starlarkstruct.Struct:
		b = append(b, '{')
		for i, name := range v.AttrNames() {
			sep(i)
			field, err := v.Attr(name)
			if err != nil {
				field = starlark.None
			}
			b = append(appendOrdered(b, starlark.String(name)), ':')
			b = appendOrdered(b, field)
		}
		return append(b, '}')
	case starlark.String:
		return manifest.AppendJSON(b, string(v))
	case starlark.Indexable:
		b = append(b, '[')
		for i := range v.Len() {
			sep(i)
			b = appendOrdered(b, v.Index(i))
		}
		return append(b, ']')
	}
	x, err := toPlain("", v)
	if err != nil {
		x = nil
	}
	return manifest.AppendJSON(b, x)
}

// fromPlain is the way back, for the attributes of values. The result is frozen.
func fromPlain(x any) starlark.Value {
	v := thaw(x)
	v.Freeze()
	return v
}

func thaw(x any) starlark.Value {
	switch x := x.(type) {
	case bool:
		return starlark.Bool(x)
	case string:
		return starlark.String(x)
	case json.Number:
		return number(string(x))
	case []any:
		list := make([]starlark.Value, len(x))
		for i := range x {
			list[i] = thaw(x[i])
		}
		return starlark.NewList(list)
	case map[string]any:
		dict := starlark.NewDict(len(x))
		for _, k := range slices.Sorted(maps.Keys(x)) {
			_ = dict.SetKey(starlark.String(k), thaw(x[k])) // a string hashes, the dict is not frozen
		}
		return dict
	}
	return starlark.None
}

func number(s string) starlark.Value {
	if i, ok := new(big.Int).SetString(s, 10); ok {
		return starlark.MakeBigInt(i)
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return starlark.String(s)
	}
	return starlark.Float(f)
}
