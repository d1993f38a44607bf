// Every program of the build root that a stage starts is among its Tools: on the host as
// build root, it would not be known that it is another one now.
package stages

import (
	"go/ast"
	"go/token"
	"slices"
	"strconv"
	"testing"
)

// startArgument says which argument of a function is the program that it starts.
var startArgument = map[string]int{"Run": 0, "Output": 0, "Cmd": 0, "Input": 1, "runEnv": 2}

func TestToolsAreNamed(t *testing.T) {
	files := parsePackage(t, token.NewFileSet())
	programs, tools := map[string][]string{}, map[string][]string{}
	var all []string
	for name, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				called := ""
				switch fun := n.Fun.(type) {
				case *ast.Ident:
					called = fun.Name
				case *ast.SelectorExpr:
					called = fun.Sel.Name
				}
				if at, ok := startArgument[called]; ok && at < len(n.Args) {
					programs[name] = append(programs[name], stringsIn(n.Args[at])...)
				}
			case *ast.KeyValueExpr:
				if key, ok := n.Key.(*ast.Ident); ok && (key.Name == "Tools" || key.Name == "ToolsFor") {
					tools[name] = append(tools[name], stringsIn(n.Value)...)
				}
			}
			return true
		})
		all = append(all, tools[name]...)
	}
	started := 0
	for name := range files {
		named := tools[name]
		if named == nil {
			named = all // it has no stage, but what stages have in common
		}
		for _, p := range programs[name] {
			if started++; !slices.Contains(named, p) {
				t.Errorf("%s starts %s, which is not in its Tools: %q", name, p, named)
			}
		}
	}
	if started < 15 {
		t.Errorf("only %d programs were found", started)
	}
}

// stringsIn are the literal texts in an expression.
func stringsIn(e ast.Node) (out []string) {
	ast.Inspect(e, func(n ast.Node) bool {
		if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
			if s, err := strconv.Unquote(l.Value); err == nil {
				out = append(out, s)
			}
		}
		return true
	})
	return out
}
