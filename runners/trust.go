// Certificate authorities: what programs look for in /etc to verify TLS, made of what
// the packages of the tree have below /usr.
//
// Where that is was found by running the programs, and by what they are built with.
// Debian: curl, wget and git (GnuTLS) and Go programs (skopeo) read
// /etc/ssl/certs/ca-certificates.crt; OpenSSL's default, so Python's and Perl's too,
// is /etc/ssl/certs by the hashes of subjects. Fedora and RHEL: OpenSSL's
// /etc/pki/tls/cert.pem, curl's /etc/pki/tls/certs/ca-bundle.crt, Go's either one, and
// in newer releases extracted/pem/directory-hash; all are links to what
// update-ca-trust extracts. Arch: /etc/ssl/certs/ca-certificates.crt.
package runners

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// debianTrust does what update-ca-certificates does when the package is configured:
// the authorities that /etc/ca-certificates.conf has switched on (all of the package's,
// where there is no such file), then those that the administrator has added.
func debianTrust(_ context.Context, r Root) error {
	const certs, local = "/usr/share/ca-certificates", "/usr/local/share/ca-certificates"
	var files []string
	conf, err := os.ReadFile(r.path("/etc/ca-certificates.conf"))
	switch {
	case err == nil:
		for line := range strings.Lines(string(conf)) {
			if line = strings.TrimSpace(line); line != "" && line[0] != '#' && line[0] != '!' {
				files = append(files, path.Join(certs, line))
			}
		}
	case errors.Is(err, fs.ErrNotExist):
		if files, err = r.filesBelow(certs, ".crt"); err != nil {
			return err
		}
	default:
		return err
	}
	own, err := r.filesBelow(local, ".crt")
	if err != nil {
		return err
	}
	var bundle []byte
	byHash := map[string]int{}
	plain := strings.NewReplacer(" ", "_", "(", "=", ")", "=", ",", "_")
	for _, f := range append(files, own...) {
		b, err := os.ReadFile(r.path(f))
		if errors.Is(err, fs.ErrNotExist) {
			continue // listed, and not in this version of the package
		}
		if err != nil {
			return err
		}
		if len(b) > 0 && b[len(b)-1] != '\n' {
			b = append(b, '\n')
		}
		bundle = append(bundle, b...)
		name := plain.Replace(strings.TrimSuffix(path.Base(f), ".crt")) + ".pem"
		if err := symlink(f, r.path("/etc/ssl/certs/"+name)); err != nil {
			return err
		}
		// OpenSSL finds a file by the subject of the first certificate in it.
		block, _ := pem.Decode(b)
		if block == nil {
			continue
		}
		c, err := parseCertificate(block.Bytes)
		if err != nil {
			continue // no program could use it either
		}
		hash := c.subjectHash()
		if err := symlink(name, r.path(fmt.Sprintf("/etc/ssl/certs/%s.%d", hash, byHash[hash]))); err != nil {
			return err
		}
		byHash[hash]++
	}
	if bundle == nil {
		return nil
	}
	return writeFile(r.path("/etc/ssl/certs/ca-certificates.crt"), string(bundle), 0o644)
}

// fedoraTrust does what update-ca-trust does, for TLS.
func fedoraTrust(_ context.Context, r Root) error {
	const extracted = "/etc/pki/ca-trust/extracted/pem"
	return trust(r, []string{"/usr/share/pki/ca-trust-source", "/etc/pki/ca-trust/source"},
		extracted+"/tls-ca-bundle.pem", extracted+"/directory-hash", map[string]string{
			"/etc/pki/tls/certs/ca-bundle.crt": extracted + "/tls-ca-bundle.pem",
			"/etc/pki/tls/cert.pem":            extracted + "/tls-ca-bundle.pem",
			"/etc/ssl/cert.pem":                extracted + "/tls-ca-bundle.pem",
			"/etc/ssl/certs":                   "/etc/pki/tls/certs",
		})
}

// archTrust does what update-ca-trust does on Arch Linux, for TLS.
func archTrust(_ context.Context, r Root) error {
	const extracted = "/etc/ca-certificates/extracted"
	return trust(r, []string{"/usr/share/ca-certificates/trust-source", "/etc/ca-certificates/trust-source"},
		extracted+"/tls-ca-bundle.pem", "/etc/ssl/certs", map[string]string{
			"/etc/ssl/certs/ca-certificates.crt": extracted + "/tls-ca-bundle.pem",
			"/etc/ssl/cert.pem":                  extracted + "/tls-ca-bundle.pem",
		})
}

// trust extracts the authorities for TLS servers from sources of p11-kit into one
// file, and into a directory with a file for each by the hash of its subject.
func trust(r Root, sources []string, bundleFile, hashDir string, links map[string]string) error {
	var s trustStore
	for _, dir := range sources {
		if err := s.read(r, dir); err != nil {
			return err
		}
	}
	anchors := s.servers()
	if len(anchors) == 0 {
		return nil
	}
	var bundle []byte
	byHash := map[string]int{}
	for _, c := range anchors {
		text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.der})
		bundle = append(bundle, text...)
		hash := c.subjectHash()
		if err := writeFile(r.path(fmt.Sprintf("%s/%s.%d", hashDir, hash, byHash[hash])), string(text), 0o444); err != nil {
			return err
		}
		byHash[hash]++
	}
	if err := writeFile(r.path(bundleFile), string(bundle), 0o444); err != nil {
		return err
	}
	for _, at := range sortedKeys(links) {
		if err := symlink(links[at], r.path(at)); err != nil {
			return err
		}
	}
	return nil
}

func sortedKeys(m map[string]string) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// filesBelow lists the files with that ending below a directory of the root, by their
// paths in it, sorted. A directory that is not there has none.
func (r Root) filesBelow(dir, ending string) ([]string, error) {
	var out []string
	err := filepath.WalkDir(r.path(dir), func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && strings.HasSuffix(p, ending) {
			rel, err := filepath.Rel(r.path("/"), p)
			if err != nil {
				return err
			}
			out = append(out, "/"+rel)
		}
		return nil
	})
	slices.Sort(out)
	return out, err
}

// trustStore is what the files of p11-kit's trust module say.
type trustStore struct {
	anchors []*certificate
	blocked [][]byte          // DER of certificates that are not to be trusted
	usages  map[string][]byte // public key → value of its extended key usage
}

// read takes in a source directory: what is in anchors/ is trusted, what is in
// blocklist/ (blacklist/ in older releases) is not, and files of p11-kit say it
// themselves.
func (s *trustStore) read(r Root, dir string) error {
	for _, sub := range []string{"", "anchors", "blocklist", "blacklist"} {
		ents, err := os.ReadDir(r.path(path.Join(dir, sub)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for _, e := range ents {
			b, err := os.ReadFile(r.path(path.Join(dir, sub, e.Name())))
			if err != nil {
				continue // a directory, or a link to nothing
			}
			switch {
			case bytes.Contains(b, []byte("[p11-kit-object-v1]")):
				s.readObjects(string(b), sub)
			case sub != "":
				s.readCertificates(b, sub)
			}
		}
	}
	return nil
}

func (s *trustStore) add(der []byte, trusted, blocked bool) {
	switch {
	case blocked:
		s.blocked = append(s.blocked, der)
	case trusted:
		if c, err := parseCertificate(der); err == nil {
			s.anchors = append(s.anchors, c)
		}
	}
}

// readCertificates reads a file of certificates in PEM, or one in DER.
func (s *trustStore) readCertificates(b []byte, sub string) {
	anchor := sub == "anchors"
	if block, _ := pem.Decode(b); block == nil {
		s.add(b, anchor, !anchor)
		return
	}
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			return
		}
		if block.Type == "CERTIFICATE" {
			s.add(block.Bytes, anchor, !anchor)
		}
	}
}

// readObjects reads the text form of PKCS#11 objects that p11-kit has: sections of
// "name: value", with certificates and keys in PEM.
func (s *trustStore) readObjects(text, sub string) {
	for _, section := range strings.Split(text, "[p11-kit-object-v1]")[1:] {
		attrs := map[string]string{}
		head, _, _ := strings.Cut(section, "-----BEGIN")
		for line := range strings.Lines(head) {
			if k, v, ok := strings.Cut(line, ":"); ok {
				attrs[strings.TrimSpace(k)] = strings.TrimSpace(v)
			}
		}
		block, _ := pem.Decode([]byte(section))
		switch {
		case attrs["class"] == "x-certificate-extension" && attrs["object-id"] == "2.5.29.37":
			key := attrs["x-public-key-info"]
			if key == "" {
				key = attrs["public-key-info"]
			}
			der := string(unquote(key))
			if block != nil && block.Type == "PUBLIC KEY" {
				der = string(block.Bytes)
			}
			if s.usages == nil {
				s.usages = map[string][]byte{}
			}
			s.usages[der] = unquote(attrs["value"])
		case block != nil && block.Type == "CERTIFICATE":
			s.add(block.Bytes, attrs["trusted"] == "true" || sub == "anchors",
				attrs["x-distrusted"] == "true" || strings.HasPrefix(sub, "bl"))
		}
	}
}

// unquote reads a value in quotes, where %XX is a byte.
func unquote(s string) []byte {
	s = strings.Trim(s, `"`)
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		var b byte
		if s[i] == '%' && i+2 < len(s) {
			if _, err := fmt.Sscanf(s[i+1:i+3], "%02x", &b); err == nil {
				out = append(out, b)
				i += 2
				continue
			}
		}
		out = append(out, s[i])
	}
	return out
}

// The usages, in DER, by which a certificate is good for TLS servers.
var (
	serverAuth = []byte{6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 1}
	anyUsage   = []byte{6, 4, 0x55, 0x1d, 0x25, 0}
)

// servers are the authorities that vouch for TLS servers, each once.
func (s *trustStore) servers() []*certificate {
	var out []*certificate
	seen := map[string]bool{}
	for _, der := range s.blocked {
		seen[string(der)] = true
	}
	for _, c := range s.anchors {
		usage, limited := s.usages[string(c.key)]
		if seen[string(c.der)] || limited && !bytes.Contains(usage, serverAuth) && !bytes.Contains(usage, anyUsage) {
			continue
		}
		seen[string(c.der)] = true
		out = append(out, c)
	}
	return out
}
