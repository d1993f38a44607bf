package stages

import "testing"

func TestFindAccount(t *testing.T) {
	c := testContext(t, nil)
	putTree(t, c.Tree, map[string]string{"/etc/passwd": "root:x:0:0\nbroken\nbad:x:no\r\nbob:x:5\n+:::\n"})
	for name, want := range map[string]int{"root": 0, "bob": 5} {
		a, err := findAccount(c, "/etc/passwd", name)
		if err != nil || a == nil {
			t.Errorf("%s: %v, %v", name, a, err)
			continue
		}
		if id, err := a.id(); err != nil || id != want {
			t.Errorf("%s has the number %d, %v", name, id, err)
		}
	}
	for _, name := range []string{"broken", "ro", "", "root:x"} {
		if a, err := findAccount(c, "/etc/passwd", name); a != nil || err != nil {
			t.Errorf("%q is %v, %v", name, a, err)
		}
	}
	a, err := findAccount(c, "/etc/passwd", "bad")
	if err != nil {
		t.Fatal(err)
	}
	if id, err := a.id(); err == nil {
		t.Errorf("bad has the number %d", id)
	}
	if a, err := findAccount(c, "/etc/none", "root"); a != nil || err != nil {
		t.Errorf("a missing file has %v, %v", a, err)
	}
}
