// A validator for JSON Schema, draft 4, that words its findings as Python's
// jsonschema does: users of upstream osbuild know those messages, and programs read
// them. It works on the decoded schema as it is, so that a schema costs nothing but
// its decoding until it is used, and nothing at the start of the program.

package manifest

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxSchemaDepth bounds how deep schemas nest: one that refers to itself for the
// same value would never end.
const maxSchemaDepth = 500

// validation is one run of a schema over a value.
type validation struct {
	root  map[string]any  // the schema document that "#/…" points into
	order func() keyOrder // of the document that the value is in, for messages
	at    string          // JSON pointer of the value in that document
	first bool            // stop at the first error
	depth int
	errs  []SchemaError
}

func (v *validation) done() bool { return v.first && len(v.errs) > 0 }

func (v *validation) fail(path []any, format string, args ...any) {
	v.errs = append(v.errs, SchemaError{Message: fmt.Sprintf(format, args...), Path: slices.Clone(path)})
}

// repr is the value at path as Python prints it.
func (v *validation) repr(x any, path []any) string {
	at := v.at
	for _, step := range path {
		at = pointer(at, step)
	}
	var order keyOrder
	if v.order != nil {
		switch x.(type) {
		case map[string]any, []any:
			order = v.order()
		}
	}
	return string(appendRepr(nil, x, order, at))
}

// valid tells whether x passes a schema, without collecting messages.
func (v *validation) valid(x any, schema any, path []any) bool {
	sub := validation{root: v.root, first: true, depth: v.depth}
	sub.check(x, schema, path)
	return len(sub.errs) == 0
}

// check adds what is wrong with x, which is at path below the place where the run
// started.
func (v *validation) check(x any, schema any, path []any) {
	s, ok := schema.(map[string]any)
	if !ok || v.done() {
		return
	}
	if v.depth++; v.depth > maxSchemaDepth {
		v.fail(path, "the schema refers to itself without an end")
		v.depth--
		return
	}
	defer func() { v.depth-- }()
	if ref, ok := s["$ref"].(string); ok {
		target, ok := v.resolve(ref)
		if !ok {
			v.fail(path, "Unresolvable JSON pointer: %s", pyString(strings.TrimPrefix(ref, "#/")))
			return
		}
		v.check(x, target, path)
		return
	}
	for keyword, arg := range s {
		if v.done() {
			return
		}
		switch keyword {
		case "type":
			v.checkType(x, arg, path)
		case "enum":
			if all, ok := arg.([]any); ok && !slices.ContainsFunc(all, func(e any) bool { return equal(e, x) }) {
				v.fail(path, "%s is not one of %s", v.repr(x, path), pyRepr(all))
			}
		case "not":
			if v.valid(x, arg, path) {
				v.fail(path, "%s should not be valid under %s", v.repr(x, path), pyRepr(arg))
			}
		case "allOf":
			all, _ := arg.([]any)
			for _, sub := range all {
				v.check(x, sub, path)
			}
		case "anyOf":
			if all, ok := arg.([]any); ok && !slices.ContainsFunc(all, func(sub any) bool { return v.valid(x, sub, path) }) {
				v.fail(path, "%s is not valid under any of the given schemas", v.repr(x, path))
			}
		case "oneOf":
			v.checkOneOf(x, arg, path)
		}
	}
	switch x := x.(type) {
	case map[string]any:
		v.checkObject(x, s, path)
	case []any:
		v.checkArray(x, s, path)
	case string:
		v.checkString(x, s, path)
	default:
		if n, ok := numberText(x); ok {
			v.checkNumber(n, s, path)
		}
	}
}

// resolve finds what a reference into the same document points at.
func (v *validation) resolve(ref string) (any, bool) {
	rest, ok := strings.CutPrefix(ref, "#")
	if !ok {
		return nil, false
	}
	var at any = v.root
	if rest == "" {
		return at, true
	}
	for _, step := range strings.Split(strings.TrimPrefix(rest, "/"), "/") {
		m, ok := at.(map[string]any)
		if !ok {
			return nil, false
		}
		step = strings.NewReplacer("~1", "/", "~0", "~").Replace(step)
		if at, ok = m[step]; !ok {
			return nil, false
		}
	}
	return at, true
}

func (v *validation) checkType(x, arg any, path []any) {
	names, ok := arg.([]any)
	if !ok {
		names = []any{arg}
	}
	var want []string
	for _, n := range names {
		name, _ := n.(string)
		if isType(x, name) {
			return
		}
		want = append(want, pyString(name))
	}
	v.fail(path, "%s is not of type %s", v.repr(x, path), strings.Join(want, ", "))
}

// isType knows the types of draft 4: a number with a point or an exponent is no
// integer, whatever its value.
func isType(x any, name string) bool {
	switch x.(type) {
	case nil:
		return name == "null"
	case bool:
		return name == "boolean"
	case string:
		return name == "string"
	case []any:
		return name == "array"
	case map[string]any:
		return name == "object"
	}
	n, ok := numberText(x)
	return ok && (name == "number" || name == "integer" && !isFloat(n))
}

func (v *validation) checkOneOf(x, arg any, path []any) {
	all, _ := arg.([]any)
	var match []any
	for _, sub := range all {
		if v.valid(x, sub, path) {
			match = append(match, sub)
		}
	}
	switch len(match) {
	case 0:
		v.fail(path, "%s is not valid under any of the given schemas", v.repr(x, path))
	case 1:
	default:
		var reprs []string
		for _, sub := range append(match[1:], match[0]) {
			reprs = append(reprs, pyRepr(sub))
		}
		v.fail(path, "%s is valid under each of %s", v.repr(x, path), strings.Join(reprs, ", "))
	}
}

func (v *validation) checkObject(x map[string]any, s map[string]any, path []any) {
	if n, ok := limit(s, "minProperties"); ok && len(x) < n {
		v.fail(path, "%s %s", v.repr(x, path), either(n == 1, "should be non-empty", "does not have enough properties"))
	}
	if n, ok := limit(s, "maxProperties"); ok && len(x) > n {
		v.fail(path, "%s %s", v.repr(x, path), either(n == 0, "is expected to be empty", "has too many properties"))
	}
	required, _ := s["required"].([]any)
	for _, r := range required {
		if name, ok := r.(string); ok {
			if _, there := x[name]; !there {
				v.fail(path, "%s is a required property", pyString(name))
			}
		}
	}
	dependencies, _ := s["dependencies"].(map[string]any)
	for name, dep := range dependencies {
		if _, there := x[name]; !there {
			continue
		}
		needs, ok := dep.([]any)
		if !ok {
			v.check(x, dep, path)
		}
		for _, n := range needs {
			if need, ok := n.(string); ok {
				if _, there := x[need]; !there {
					v.fail(path, "%s is a dependency of %s", pyString(need), pyString(name))
				}
			}
		}
	}

	properties, _ := s["properties"].(map[string]any)
	patterns, _ := s["patternProperties"].(map[string]any)
	additional, restricted := s["additionalProperties"]
	var extra []string
	for name, value := range x {
		if v.done() {
			return
		}
		sub, known := properties[name]
		if known {
			v.check(value, sub, append(path, name))
		}
		for p, sub := range patterns {
			if pattern(p).MatchString(name) {
				known = true
				v.check(value, sub, append(path, name))
			}
		}
		if !known && restricted {
			if sub, ok := additional.(map[string]any); ok {
				v.check(value, sub, append(path, name))
			} else if additional == false {
				extra = append(extra, name)
			}
		}
	}
	if len(extra) == 0 {
		return
	}
	slices.Sort(extra)
	for i, name := range extra {
		extra[i] = pyString(name)
	}
	names := strings.Join(extra, ", ")
	if _, ok := s["patternProperties"]; ok {
		regexes := sortedKeys(patterns)
		for i, p := range regexes {
			regexes[i] = pyString(p)
		}
		v.fail(path, "%s %s not match any of the regexes: %s", names, either(len(extra) == 1, "does", "do"), strings.Join(regexes, ", "))
		return
	}
	v.fail(path, "Additional properties are not allowed (%s %s unexpected)", names, either(len(extra) == 1, "was", "were"))
}

func (v *validation) checkArray(x []any, s map[string]any, path []any) {
	if n, ok := limit(s, "minItems"); ok && len(x) < n {
		v.fail(path, "%s %s", v.repr(x, path), either(n == 1, "should be non-empty", "is too short"))
	}
	if n, ok := limit(s, "maxItems"); ok && len(x) > n {
		v.fail(path, "%s %s", v.repr(x, path), either(n == 0, "is expected to be empty", "is too long"))
	}
	if s["uniqueItems"] == true && hasDuplicates(x) {
		v.fail(path, "%s has non-unique elements", v.repr(x, path))
	}
	switch items := s["items"].(type) {
	case map[string]any:
		for i, e := range x {
			v.check(e, items, append(path, i))
		}
	case []any:
		n := min(len(x), len(items))
		for i, e := range x[:n] {
			v.check(e, items[i], append(path, i))
		}
		rest := x[n:]
		if sub, ok := s["additionalItems"].(map[string]any); ok {
			for i, e := range rest {
				v.check(e, sub, append(path, n+i))
			}
		} else if s["additionalItems"] == false && len(rest) > 0 {
			var extra []string
			for i, e := range rest {
				extra = append(extra, v.repr(e, append(path, n+i)))
			}
			v.fail(path, "Additional items are not allowed (%s %s unexpected)", strings.Join(extra, ", "), either(len(extra) == 1, "was", "were"))
		}
	}
}

func hasDuplicates(x []any) bool {
	for i, a := range x {
		if slices.ContainsFunc(x[:i], func(b any) bool { return equal(a, b) }) {
			return true
		}
	}
	return false
}

func (v *validation) checkString(x string, s map[string]any, path []any) {
	if n, ok := limit(s, "minLength"); ok && utf8.RuneCountInString(x) < n {
		v.fail(path, "%s %s", pyString(x), either(n == 1, "should be non-empty", "is too short"))
	}
	if n, ok := limit(s, "maxLength"); ok && utf8.RuneCountInString(x) > n {
		v.fail(path, "%s %s", pyString(x), either(n == 0, "is expected to be empty", "is too long"))
	}
	if p, ok := s["pattern"].(string); ok && !pattern(p).MatchString(x) {
		v.fail(path, "%s does not match %s", pyString(x), pyString(p))
	}
}

func (v *validation) checkNumber(x string, s map[string]any, path []any) {
	if m, ok := numberText(s["minimum"]); ok {
		c, exclusive := compareNumbers(x, m), s["exclusiveMinimum"] == true
		if c < 0 || exclusive && c == 0 {
			v.fail(path, "%s is less than%s the minimum of %s", pyNumber(x), either(exclusive, " or equal to", ""), pyNumber(m))
		}
	}
	if m, ok := numberText(s["maximum"]); ok {
		c, exclusive := compareNumbers(x, m), s["exclusiveMaximum"] == true
		if c > 0 || exclusive && c == 0 {
			v.fail(path, "%s is greater than%s the maximum of %s", pyNumber(x), either(exclusive, " or equal to", ""), pyNumber(m))
		}
	}
	if m, ok := numberText(s["multipleOf"]); ok && !isMultiple(x, m) {
		v.fail(path, "%s is not a multiple of %s", pyNumber(x), pyNumber(m))
	}
}

// limit reads a keyword that counts something.
func limit(s map[string]any, keyword string) (int, bool) {
	arg, ok := s[keyword]
	if !ok {
		return 0, false
	}
	text, ok := numberText(arg)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseFloat(text, 64)
	return int(n), err == nil
}

func either(cond bool, yes, no string) string {
	if cond {
		return yes
	}
	return no
}

// numberText is the JSON text of a number of any of the kinds that values may have.
func numberText(x any) (string, bool) {
	switch x := x.(type) {
	case json.Number:
		return string(x), true
	case int:
		return strconv.Itoa(x), true
	case int64:
		return strconv.FormatInt(x, 10), true
	case float64:
		return string(appendFloat(nil, x)), true
	}
	return "", false
}

// compareNumbers is exact for integers of any size, and as good as float64 else.
func compareNumbers(a, b string) int {
	if !isFloat(a) && !isFloat(b) {
		x, ok := new(big.Int).SetString(a, 10)
		y, ok2 := new(big.Int).SetString(b, 10)
		if ok && ok2 {
			return x.Cmp(y)
		}
	}
	x, _ := strconv.ParseFloat(a, 64)
	y, _ := strconv.ParseFloat(b, 64)
	switch {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}

func isMultiple(x, of string) bool {
	if !isFloat(x) && !isFloat(of) {
		a, ok := new(big.Int).SetString(x, 10)
		b, ok2 := new(big.Int).SetString(of, 10)
		if ok && ok2 && b.Sign() != 0 {
			return new(big.Int).Rem(a, b).Sign() == 0
		}
	}
	a, _ := strconv.ParseFloat(x, 64)
	b, _ := strconv.ParseFloat(of, 64)
	if b == 0 || math.IsInf(a, 0) {
		return false
	}
	q := a / b
	return q == math.Trunc(q)
}

// equal compares JSON values: numbers by value, and true is not 1.
func equal(a, b any) bool {
	switch a := a.(type) {
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, equal)
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for k, x := range a {
			if y, there := b[k]; !there || !equal(x, y) {
				return false
			}
		}
		return true
	case nil, bool, string:
		return a == b
	}
	x, ok := numberText(a)
	y, ok2 := numberText(b)
	return ok && ok2 && compareNumbers(x, y) == 0
}
