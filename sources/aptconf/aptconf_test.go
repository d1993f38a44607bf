// Tests of reading apt's configuration.
package aptconf

import (
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const dump = `APT "";
Acquire::http "";
Acquire::http::Proxy "http://proxy.example:3128/";
Acquire::http::Proxy::direct.example "DIRECT";
acquire::HTTP::proxy::own.example "http://own.example:1";
Acquire::https::Proxy "http://tls.example:2";
Acquire::http::Timeout "5";
Acquire::httpx "no";
a line of a value
APT::Name "with "quotes" in it";
Dir::Bin::solvers:: "/usr/lib";
`

func TestProxy(t *testing.T) {
	c := Parse([]byte(dump))
	tests := []struct{ url, want string }{
		{"http://a.example/x.deb", "http://proxy.example:3128/"},
		{"http://direct.example/x.deb", "direct"},
		{"http://own.example:8080/x.deb", "http://own.example:1"},
		{"https://a.example/x.deb", "http://tls.example:2"},
		{"https://own.example/x.deb", "http://own.example:1"},
		{"ftp://a.example/x.deb", "environment"},
	}
	for _, tt := range tests {
		u, _ := url.Parse(tt.url)
		p, ok, err := c.Proxy(t.Context(), u)
		got := "environment"
		switch {
		case err != nil:
			got = err.Error()
		case ok && p == nil:
			got = "direct"
		case ok:
			got = p.String()
		}
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.url, got, tt.want)
		}
	}
	bad := Config{{"Acquire::http::Proxy", "nonsense"}}
	if _, _, err := bad.Proxy(t.Context(), &url.URL{Scheme: "http", Host: "a"}); err == nil {
		t.Error("a proxy that is no URL is taken")
	}
	if diff := cmp.Diff(`with "quotes" in it`, c.Get("apt::name")); diff != "" {
		t.Error(diff)
	}
	if n := len(c.Below("Acquire::http")); n != 4 {
		t.Errorf("%d options below Acquire::http, want 4: %v", n, c.Below("Acquire::http"))
	}
}

func TestProxyAutoDetect(t *testing.T) {
	prog := filepath.Join(t.TempDir(), "detect")
	if err := os.WriteFile(prog, []byte("#!/bin/sh\necho http://found.example:3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	c := Config{{"Acquire::http::Proxy-Auto-Detect", prog}}
	p, ok, err := c.Proxy(t.Context(), &url.URL{Scheme: "http", Host: "a.example"})
	if err != nil || !ok || p.Host != "found.example:3" {
		t.Errorf("%v, %v, %v", p, ok, err)
	}
}

func TestHost(t *testing.T) {
	if _, err := exec.LookPath("apt-config"); err != nil {
		t.Skip("apt-config is missing")
	}
	etc := t.TempDir()
	os.Mkdir(filepath.Join(etc, "apt.conf.d"), 0o755)
	os.WriteFile(filepath.Join(etc, "apt.conf.d", "10proxy"), []byte(`Acquire::http::Proxy "http://p.example:1";`), 0o644)
	c, err := Host(t.Context(), etc)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Get("Acquire::http::Proxy"); got != "http://p.example:1" {
		t.Errorf("proxy %q", got)
	}
	if c.Get("Dir::Cache") == "" {
		t.Error("apt's own defaults are missing")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(dump))
	f.Add([]byte("a%zz \"b\";\n \"\";"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, o := range Parse(b) {
			if o.Name == "" {
				t.Error("an option without a name")
			}
		}
	})
}
