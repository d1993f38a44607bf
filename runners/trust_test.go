// Certificate authorities: held against update-ca-certificates and openssl where this
// machine has them, and against files of p11-kit whose meaning is known.
package runners

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// authority makes the certificate of an authority with that subject.
func authority(t *testing.T, subject pkix.Name) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: subject, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func pemOf(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

// What update-ca-certificates makes of this machine's package, the runner makes too:
// the same file, and the same names by hash.
func TestDebianTrustIsTheProgram(t *testing.T) {
	if _, err := exec.LookPath("update-ca-certificates"); err != nil {
		t.Skip("needs update-ca-certificates (package ca-certificates)")
	}
	dir, want := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "usr/share"), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-rL", "/usr/share/ca-certificates", filepath.Join(dir, "usr/share")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	all, err := Root{Dir: dir}.filesBelow("/usr/share/ca-certificates", ".crt")
	if err != nil || len(all) < 20 {
		t.Fatalf("%d certificates, %v", len(all), err)
	}
	// One is switched off, one not there any more, and two are the administrator's, with
	// one name of the subject.
	conf := "# a comment\n\n"
	for i, f := range all {
		f = strings.TrimPrefix(f, "/usr/share/ca-certificates/")
		if i == 3 {
			f = "!" + f
		}
		conf += f + "\n"
	}
	conf += "mozilla/gone.crt\n"
	write(t, dir, "etc/ca-certificates.conf", conf)
	for i := range 2 {
		c := authority(t, pkix.Name{CommonName: "  Twice   THE Same\tÄname ", Organization: []string{"Ours"}, Country: []string{"DE"}})
		text := pemOf(c)
		if i == 1 {
			text = strings.TrimSpace(text)
		}
		write(t, dir, fmt.Sprintf("usr/local/share/ca-certificates/our own (%d), really.crt", i), text)
	}
	cmd := exec.Command("update-ca-certificates", "--certsdir", filepath.Join(dir, "usr/share/ca-certificates"), "--localcertsdir", filepath.Join(dir, "usr/local/share/ca-certificates"),
		"--etccertsdir", want, "--certsconf", filepath.Join(dir, "etc/ca-certificates.conf"), "--hooksdir", t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := debianTrust(context.Background(), Root{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	got := filepath.Join(dir, "etc/ssl/certs")
	if diff := cmp.Diff(bundleOf(t, filepath.Join(want, "ca-certificates.crt")), bundleOf(t, filepath.Join(got, "ca-certificates.crt"))); diff != "" {
		t.Errorf("ca-certificates.crt (-program +runner):\n%.2000s", diff)
	}
	names := func(dir string) map[string]bool {
		out := map[string]bool{}
		ents, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range ents {
			out[e.Name()] = true
		}
		return out
	}
	w, g := names(want), names(got)
	if diff := cmp.Diff(w, g); diff != "" || len(w) < 100 {
		t.Errorf("%d names (-program +runner):\n%s", len(w), diff)
	}
	// Without the configuration all are in.
	if err := os.RemoveAll(filepath.Join(dir, "etc")); err != nil {
		t.Fatal(err)
	}
	if err := debianTrust(context.Background(), Root{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	if n := len(bundleOf(t, filepath.Join(got, "ca-certificates.crt"))); n != len(all)+2 {
		t.Errorf("without configuration: %d of %d", n, len(all)+2)
	}
}

func bundleOf(t *testing.T, file string) []string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			return out
		}
		out = append(out, fmt.Sprintf("%x", block.Bytes))
	}
}

// The names that OpenSSL gives subjects, for every kind of string.
func TestSubjectHash(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("needs openssl")
	}
	str := func(tag int, text string) asn1.RawValue { return asn1.RawValue{Tag: tag, Bytes: []byte(text)} }
	for i, v := range []asn1.RawValue{
		str(asn1.TagUTF8String, "Prüf  Stelle"), str(asn1.TagPrintableString, " UPPER lower "), str(asn1.TagIA5String, "a@B.example"),
		str(asn1.TagT61String, "Z\xfcrich CA"), str(asn1.TagBMPString, "\x00B\x00M\x00P\x04\x16"), str(28, "\x00\x00\x00U\x00\x00\x01\x30"),
		str(asn1.TagNumericString, "12 34"), str(asn1.TagUTF8String, "\t\v tab"),
	} {
		oid := func(n int) asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 5, 4, n} }
		type pair struct {
			Type  asn1.ObjectIdentifier
			Value asn1.RawValue
		}
		der, err := asn1.Marshal([]asn1.RawValue{set(t, pair{oid(10), v}), set(t, pair{oid(11), v}, pair{oid(3), str(asn1.TagUTF8String, "Second")})})
		if err != nil {
			t.Fatal(err)
		}
		c := authority(t, pkix.Name{CommonName: "x"})
		raw := reissue(t, c, der)
		parsed, err := parseCertificate(raw)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("openssl", "x509", "-hash", "-noout")
		cmd.Stdin = bytes.NewReader(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%d: %v: %s", i, err, out)
		}
		if want := strings.TrimSpace(string(out)); parsed.subjectHash() != want {
			t.Errorf("%d: %q: %s, openssl says %s", i, v.Bytes, parsed.subjectHash(), want)
		}
	}
}

// set is one relative distinguished name.
func set(t *testing.T, pairs ...any) asn1.RawValue {
	t.Helper()
	var all []byte
	for _, p := range pairs {
		b, err := asn1.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	return asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: all}
}

// reissue makes a certificate with that subject, in DER.
func reissue(t *testing.T, like *x509.Certificate, subject []byte) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := x509.Certificate{SerialNumber: like.SerialNumber, RawSubject: subject, NotBefore: like.NotBefore, NotAfter: like.NotAfter}
	der, err := x509.CreateCertificate(rand.Reader, &tmpl, &tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// section is an object in a file of p11-kit.
func section(attrs ...string) string {
	return "[p11-kit-object-v1]\n" + strings.Join(attrs, "\n") + "\n\n"
}

func percent(b []byte) string {
	var s strings.Builder
	for _, c := range b {
		fmt.Fprintf(&s, "%%%02x", c)
	}
	return s.String()
}

func TestPKITrust(t *testing.T) {
	name := func(s string) *x509.Certificate { return authority(t, pkix.Name{CommonName: s}) }
	servers, mail, both, distrusted, plainOne, anchor, blocked, twice := name("servers"), name("mail"), name("both"), name("distrusted"),
		name("trusted by nobody"), name("anchor"), name("blocked"), name("twice")
	usage := func(c *x509.Certificate, oids ...asn1.ObjectIdentifier) string {
		value, err := asn1.Marshal(oids)
		if err != nil {
			t.Fatal(err)
		}
		ext, err := asn1.Marshal(pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Value: value})
		if err != nil {
			t.Fatal(err)
		}
		key := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: c.RawSubjectPublicKeyInfo}))
		return section(`label: "x"`, "class: x-certificate-extension", "object-id: 2.5.29.37", `value: "`+percent(ext)+`"`, "modifiable: false", key)
	}
	serverAuth, email := asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 1}, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 4}
	text := "# made by hand\n" +
		section(`label: "servers"`, "trusted: true", "nss-mozilla-ca-policy: true", "modifiable: false", pemOf(servers)) + usage(servers, serverAuth) +
		section(`label: "mail"`, "trusted: true", pemOf(mail)) + usage(mail, email) +
		section(`label: "both"`, "trusted: true", pemOf(both)) + usage(both, email, serverAuth) +
		section(`label: "no"`, "x-distrusted: true", "trusted: true", pemOf(distrusted)) +
		section(`label: "neutral"`, pemOf(plainOne)) +
		section(`label: "blocked below"`, "trusted: true", pemOf(blocked)) +
		section(`label: "twice"`, "trusted: true", pemOf(twice)) + section(`label: "twice"`, "trusted: true", pemOf(twice))
	for _, c := range []struct {
		runner, source, bundle string
		links                  []string
	}{
		{"rhel90", "usr/share/pki/ca-trust-source", "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", []string{
			"etc/pki/tls/certs/ca-bundle.crt -> /etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "etc/pki/tls/cert.pem -> /etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
			"etc/ssl/certs -> /etc/pki/tls/certs",
		}},
		{"rhel82", "usr/share/pki/ca-trust-source", "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", nil},
		{"rhel81", "usr/share/pki/ca-trust-source", "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", nil},
		{"rhel7", "usr/share/pki/ca-trust-source", "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", nil},
		{"fedora30", "usr/share/pki/ca-trust-source", "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", nil},
		{"arch", "usr/share/ca-certificates/trust-source", "etc/ca-certificates/extracted/tls-ca-bundle.pem", []string{
			"etc/ssl/certs/ca-certificates.crt -> /etc/ca-certificates/extracted/tls-ca-bundle.pem",
		}},
	} {
		dir := t.TempDir()
		write(t, dir, c.source+"/ca-bundle.trust.p11-kit", text)
		write(t, dir, c.source+"/README", "not a certificate")
		write(t, dir, c.source+"/anchors/own.pem", "# ours\n"+pemOf(anchor))
		write(t, dir, c.source+"/blocklist/no.der", string(blocked.Raw))
		if _, err := prepare(t, c.runner, dir); err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, x := range []*x509.Certificate{servers, both, twice, anchor} {
			want = append(want, fmt.Sprintf("%x", x.Raw))
		}
		if diff := cmp.Diff(want, bundleOf(t, filepath.Join(dir, c.bundle))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.runner, diff)
		}
		for _, l := range c.links {
			at, to, _ := strings.Cut(l, " -> ")
			if got, err := os.Readlink(filepath.Join(dir, at)); got != to {
				t.Errorf("%s: %s leads to %q, %v", c.runner, at, got, err)
			}
		}
		// OpenSSL finds each by its hash.
		hashed, err := filepath.Glob(filepath.Join(dir, "etc/*/*/*/*/directory-hash/*.0"))
		if c.runner == "arch" {
			hashed, err = filepath.Glob(filepath.Join(dir, "etc/ssl/certs/*.0"))
		}
		if err != nil || len(hashed) != 4 {
			t.Errorf("%s: %v %v", c.runner, hashed, err)
		}
	}
}

// A tree without authorities gets no files of them.
func TestNoTrust(t *testing.T) {
	for _, runner := range []string{"debian12", "rhel90", "arch"} {
		dir := t.TempDir()
		if _, err := prepare(t, runner, dir); err != nil {
			t.Fatal(err)
		}
		for _, d := range []string{"etc/ssl", "etc/pki", "etc/ca-certificates"} {
			if _, err := os.Lstat(filepath.Join(dir, d)); err == nil {
				t.Errorf("%s: %s is there", runner, d)
			}
		}
	}
}

func FuzzParseCertificate(f *testing.F) {
	f.Add([]byte{0x30, 0})
	f.Add([]byte{0x30, 4, 0x30, 2, 0xa0, 0})
	f.Fuzz(func(t *testing.T, der []byte) {
		if c, err := parseCertificate(der); err == nil {
			c.subjectHash()
		}
		unquote(string(der))
		(&trustStore{}).readObjects("[p11-kit-object-v1]\n"+string(der), "")
	})
}
