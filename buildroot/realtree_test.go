// Real trees: what the runner of their system prepares, in a tree that has neither a
// shell nor a Python, and whether programs of the tree work with it.
package buildroot

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/osbuild-star/osbuild-star/runners"
	"github.com/osbuild-star/osbuild-star/stages"
)

// viewOf mounts a view of a tree that tests may change, and returns where.
func viewOf(t *testing.T, s *Space, tree string) string {
	t.Helper()
	dir := t.TempDir()
	at := filepath.Join(dir, "tree")
	for _, d := range []string{"tree", "upper", "work"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	err := s.Do(func() error {
		return MountTree(dir, Overlay{Lower: []string{tree}, Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work")}, at)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Do(func() error { return Unmount(at) }) })
	return at
}

// interpreters are the shells and Pythons of a tree, links to them included.
func interpreters(t *testing.T, tree string) []string {
	t.Helper()
	var out []string
	for _, d := range []string{"usr/bin", "usr/sbin", "bin", "usr/local/bin", "usr/libexec"} {
		if st, err := os.Lstat(filepath.Join(tree, d)); err != nil || !st.IsDir() {
			continue // /bin is /usr/bin
		}
		ents, err := os.ReadDir(filepath.Join(tree, d))
		if err != nil {
			continue
		}
		for _, e := range ents {
			name := e.Name()
			isShell := slices.Contains([]string{"sh", "bash", "dash", "rbash", "busybox", "zsh", "ksh", "mksh"}, name)
			if isShell || strings.HasPrefix(name, "python") || strings.HasPrefix(name, "perl") || name == "platform-python" {
				out = append(out, filepath.Join(tree, d, name))
			}
		}
	}
	return out
}

// realTrees are the host's, and that of the build environment in its place, which
// `make test-build-env` builds of packages.
func realTrees() []string {
	if testHost.Real() {
		return []string{"/"}
	}
	return []string{"/", testHost.Tree}
}

func TestTreeWithoutInterpreters(t *testing.T) { eachSandbox(t, testTreeWithoutInterpreters) }

func testTreeWithoutInterpreters(t *testing.T, sandbox string) {
	s := newSpace(t)
	for _, tree := range realTrees() {
		t.Run("tree "+tree, func(t *testing.T) {
			at := viewOf(t, s, tree)
			runner := ""
			err := s.Do(func() error {
				runner = runners.Host(at)
				found := interpreters(t, at)
				if len(found) == 0 {
					t.Error("the tree has no interpreters to begin with")
				}
				for _, p := range found {
					if err := os.Remove(p); err != nil {
						return err
					}
				}
				if left := interpreters(t, at); left != nil {
					t.Errorf("left: %v", left)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			b, err := Open(context.Background(), Config{Sandbox: sandbox, Space: s, Tree: at, Runner: runner, Work: t.TempDir(), Var: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { b.Close() })
			read := func(argv ...string) string {
				t.Helper()
				var out strings.Builder
				res, err := b.Run(context.Background(), Job{Argv: argv, Line: func(l string) { out.WriteString(l + "\n") }})
				if err != nil || res.Status != 0 || res.Err != nil {
					t.Fatalf("%q: %v %+v\n%s", argv, err, res, out.String())
				}
				return out.String()
			}
			passwd := read("cat", "/etc/passwd")
			for _, user := range []string{"root:x:0:", "nobody:", "systemd-network:"} { // the last by systemd-sysusers
				if !strings.Contains(passwd, "\n"+user) && !strings.HasPrefix(passwd, user) {
					t.Errorf("no user %s in\n%s", user, passwd)
				}
			}
			// Of systemd-tmpfiles, and of ldconfig.
			if got := read("stat", "-c", "%n %U %a", "/var/lib/private", "/etc/ld.so.cache"); got != "/var/lib/private root 700\n/etc/ld.so.cache root 644\n" {
				t.Errorf("made by systemd-tmpfiles and ldconfig:\n%s", got)
			}
			if got := read("ls", "/etc"); strings.Contains(got, "machine-id") || strings.Contains(got, "nsswitch.conf") {
				t.Errorf("in /etc: %s", got)
			}
			if runner == "org.osbuild.debian12" {
				if got := read("grep", "-c", "BEGIN CERT", "/etc/ssl/certs/ca-certificates.crt"); len(got) < 3 {
					t.Errorf("%s certificate authorities", got)
				}
			}
		})
	}
}

// What the runner has for the environment reaches every program.
func TestRunnerEnv(t *testing.T) {
	s := newSpace(t)
	b, err := Open(context.Background(), Config{Space: s, Tree: "/", Runner: "org.osbuild.rhel84", Arch: "aarch64", Work: t.TempDir(), Var: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer checkClosed(t, s, b)
	if out, _ := sh(t, b, "echo $OSBUILD_QEMU_IMG_COROUTINES"); out != "1" {
		t.Errorf("OSBUILD_QEMU_IMG_COROUTINES is %q", out)
	}
}

// tlsStage serves HTTPS on the loopback of the sandbox and has programs fetch from it.
const tlsStage = "org.osbuild-star.test.tls"

func init() {
	stages.Register(&stages.Stage{Name: tlsStage, Revision: 1, Run: runTLS})
}

func runTLS(c *stages.Context) error {
	var o struct {
		Cert, Key string
		Programs  [][]string
	}
	if err := c.Decode(&o); err != nil {
		return err
	}
	pair, err := tls.X509KeyPair([]byte(o.Cert), []byte(o.Key))
	if err != nil {
		return err
	}
	l, err := tls.Listen("tcp", "127.0.0.1:8443", &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		return err
	}
	defer l.Close()
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "served") })) //nolint:gosec // a test's
	for _, p := range o.Programs {
		if err := c.Run(p[0], p[1:]...); err != nil {
			c.Logf("FAILED %s: %v", p[0], err)
		} else {
			c.Logf("VERIFIED %s", p[0])
		}
	}
	return nil
}

// Programs of the tree verify TLS by authorities that its packages or its administrator
// have put below /usr, in a build root whose /etc is made by the runner alone.
func TestVerifyTLS(t *testing.T) { eachSandbox(t, testVerifyTLS) }

func testVerifyTLS(t *testing.T, sandbox string) {
	if runners.Host("/") != "org.osbuild.debian12" {
		t.Skip("needs a host that is Debian 12")
	}
	s := newSpace(t)
	ca, caKey := certFor(t, nil, nil)
	leaf, leafKey := certFor(t, ca, caKey)
	der, err := x509.MarshalECPrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	tree := viewOf(t, s, "/")
	err = s.Do(func() error {
		dir := filepath.Join(tree, "usr/local/share/ca-certificates")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, "osbuild-star-test.crt"), pemBlock("CERTIFICATE", ca.Raw), 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	const url = "https://127.0.0.1:8443/"
	programs := [][]string{
		{"curl", "-sS", url},                    // OpenSSL, the file
		{"wget", "-q", "--tries=1", "-O-", url}, // GnuTLS
		{"git", "ls-remote", url},               // GnuTLS' libcurl; what is served is no repository
		{"openssl", "s_client", "-verify_return_error", "-no-CAfile", "-no-CAstore", "-CApath", "/etc/ssl/certs", "-connect", "127.0.0.1:8443"}, // by the hash
		{"/usr/lib/apt/apt-helper", "-oAPT::Sandbox::User=root", "download-file", url, "/tmp/x"},
	}
	opts, err := json.Marshal(map[string]any{"options": map[string]any{
		"cert": string(pemBlock("CERTIFICATE", leaf.Raw)), "key": string(pemBlock("EC PRIVATE KEY", der)), "programs": programs,
	}})
	if err != nil {
		t.Fatal(err)
	}
	verified := func(runner string) string {
		b, err := Open(context.Background(), Config{Sandbox: sandbox, Space: s, Tree: tree, Runner: runner, Work: t.TempDir(), Var: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		var mu sync.Mutex
		var out strings.Builder
		res, err := b.Run(context.Background(), Job{Native: tlsStage, Arguments: opts, Line: func(l string) {
			mu.Lock()
			defer mu.Unlock()
			out.WriteString(l + "\n")
		}})
		if err != nil || res.Err != nil || res.Status != 0 {
			t.Fatalf("%v %+v\n%s", err, res, out.String())
		}
		return out.String()
	}
	with, without := verified("org.osbuild.debian12"), verified("org.osbuild.linux")
	for _, p := range []string{"curl", "wget", "openssl", "/usr/lib/apt/apt-helper"} {
		if !strings.Contains(with, "VERIFIED "+p+"\n") {
			t.Errorf("%s does not verify:\n%s", p, with)
		}
		if !strings.Contains(without, "FAILED "+p+":") {
			t.Errorf("%s verifies without the runner's work:\n%s", p, without)
		}
	}
	// git gets as far as the answer.
	if sc := bufio.NewScanner(strings.NewReader(with)); !scanFor(sc, "not valid: is this a git repository") && !strings.Contains(with, "VERIFIED git") {
		t.Errorf("git does not verify:\n%s", with)
	}
	if !strings.Contains(without, "server certificate verification failed") {
		t.Errorf("git verifies without:\n%s", without)
	}
}

func scanFor(sc *bufio.Scanner, text string) bool {
	for sc.Scan() {
		if strings.Contains(sc.Text(), text) {
			return true
		}
	}
	return false
}

func pemBlock(typ string, b []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: b})
}

// certFor makes an authority, or what one signs.
func certFor(t *testing.T, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		Subject: pkix.Name{CommonName: "osbuild-star test"}, BasicConstraintsValid: true,
	}
	if parent == nil {
		tmpl.IsCA, tmpl.KeyUsage = true, x509.KeyUsageCertSign
		parent, parentKey = tmpl, key
	} else {
		tmpl.Subject.CommonName = "localhost"
		tmpl.IPAddresses, tmpl.DNSNames = []net.IP{net.IPv4(127, 0, 0, 1)}, []string{"localhost"}
		tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c, key
}
