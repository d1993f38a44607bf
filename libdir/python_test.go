// Constants of Python sources: what Python itself would see.
package libdir

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestConstants(t *testing.T) {
	for _, c := range []struct {
		name, text string
		doc        string
		strings    map[string]string
		lists      map[string][]string
	}{
		{name: "nothing", text: ""},
		{name: "doc", text: "#!/usr/bin/python3\n\n'''One line'''\n", doc: "One line"},
		{name: "doc of several lines", text: "\"\"\"\n  First\n\n    indented\n  last\n\n\"\"\"\n", doc: "First\n\n  indented\nlast"},
		{name: "doc in parts", text: "('a' \"b\")\n", doc: "ab"},
		{name: "doc behind something", text: "import os\n'''x'''\n"},
		{name: "doc with a substitution", text: "f'''x'''\n"},
		{name: "plain", text: "A = 'x'\nB=\"y\"\n", strings: map[string]string{"A": "x", "B": "y"}},
		{name: "triple", text: "A = \"\"\"\n\"q\": 'r' \"\" \n\"\"\"\n", strings: map[string]string{"A": "\n\"q\": 'r' \"\" \n"}},
		{name: "raw", text: `A = r"a\d\n\"b"` + "\n" + `B = R'\\'` + "\n", strings: map[string]string{"A": `a\d\n\"b`, "B": `\\`}},
		{name: "escapes", text: `A = "a\n\t\\\"\'\x41\u00e9\U0001f600\101\0\q\
b"`, strings: map[string]string{"A": "a\n\t\\\"'Aé😀A\x00\\qb"}},
		{name: "concatenated", text: "A = 'a' \"b\" r'\\c'\nB = (\n  'a'  # one\n  'b'\n)\n", strings: map[string]string{"A": `ab\c`, "B": "ab"}},
		{name: "continued", text: "A = \\\n  'x'\n", strings: map[string]string{"A": "x"}},
		{name: "several targets", text: "A = B = 'x'\n", strings: map[string]string{"A": "x", "B": "x"}},
		{name: "several statements", text: "import x; A = 'x'; B = 'y'\n", strings: map[string]string{"A": "x", "B": "y"}},
		{name: "the last one counts", text: "A = 'x'\nA = 'y'\n", strings: map[string]string{"A": "y"}},
		{name: "replaced by what is none", text: "A = 'x'\nA = f()\n"},
		{name: "unicode prefix", text: "A = u'x'\n", strings: map[string]string{"A": "x"}},
		{name: "lists", text: "A = ['x', \"y\"]\nB = {\n  'x',  # c\n  'y',\n}\nC = ('x',)\nD = []\n",
			lists: map[string][]string{"A": {"x", "y"}, "B": {"x", "y"}, "C": {"x"}, "D": {}}},
		{name: "no constants", text: "A = 'a' + 'b'\nB = f'x'\nC = b'x'\nD: str = 'x'\nE == 'x'\nF += 'x'\nG.h = 'x'\nI, J = 'x'\nK = x\nL = ['a', b]\nM = {'a': 'b'}\nN = 1\nO = 'x'.y\nP = ['a'] + ['b']\n"},
		{name: "not at the top", text: "def f():\n    A = 'x'\nif 1:\n\tB = 'x'\nclass C: D = 'x'\nf(E='x')\nf(\nG = 'x'\n)\n"},
		{name: "inside a string", text: "X = '''\nA = 'x'\n'''\n", strings: map[string]string{"X": "\nA = 'x'\n"}},
		{name: "quotes in comments", text: "# it's\nA = 'x' # isn't\nB = 'y'\n", strings: map[string]string{"A": "x", "B": "y"}},
		{name: "a sign in front", text: "\ufeff'''doc'''\r\nA = 'x'\r\nB = '''y\r\nz'''", doc: "doc", strings: map[string]string{"A": "x", "B": "y\nz"}},
		{name: "no end", text: "A = 'x'\nB = '''y\n", strings: map[string]string{"A": "x"}},
		{name: "a broken line", text: "A = 'x\nB = 'y'\n", strings: map[string]string{"B": "y"}},
	} {
		got := constants(c.text)
		want := &pythonConstants{doc: c.doc, strings: c.strings, lists: c.lists}
		if want.strings == nil {
			want.strings = map[string]string{}
		}
		if want.lists == nil {
			want.lists = map[string][]string{}
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(pythonConstants{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}
