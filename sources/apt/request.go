// What a request means: its key, its architecture, the checks that need no network.
package apt

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/osbuild-star/osbuild-star/manifest"
	"github.com/osbuild-star/osbuild-star/sources"
)

// Variants of a request: what is asked for besides its names. They are those of
// mmdebstrap.
const (
	VariantEssential = "essential" // the packages marked Essential
	VariantMinbase   = "minbase"   // those, the ones of priority required, and apt
	VariantNone      = "none"      // nothing
)

// debArches are Debian's names of architectures, by the kernel's.
var debArches = map[string]string{
	"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64el", "s390x": "s390x", "riscv64": "riscv64",
	"i386": "i386", "i486": "i386", "i586": "i386", "i686": "i386",
	"armv7l": "armhf", "armv7hl": "armhf", "loongarch64": "loong64", "mips64": "mips64el",
}

// goArches are Debian's names of architectures, by Go's.
var goArches = map[string]string{"386": "i386", "arm": "armhf", "ppc64le": "ppc64el", "mips64le": "mips64el"}

// DebArch returns Debian's name of an architecture: "amd64" for "x86_64", for
// "amd64", and on such a machine for "".
func DebArch(arch string) (string, error) {
	if arch == "" {
		if a, ok := goArches[runtime.GOARCH]; ok {
			return a, nil
		}
		return runtime.GOARCH, nil
	}
	if a, ok := debArches[arch]; ok {
		return a, nil
	}
	for _, a := range debArches {
		if a == arch {
			return a, nil
		}
	}
	return "", &sources.Error{
		Msg:  fmt.Sprintf("architecture %q is not known", arch),
		Hint: "one of " + strings.Join(slices.Sorted(maps.Keys(debArches)), ", "),
	}
}

// RequestKey names a request by what it asks for: equal keys have equal answers on
// the same day. It is 32 hexadecimal digits of a SHA-256 over the kind, the
// architecture, the variant, recommends, the sorted names, the repositories in order
// without their keyrings, and the key of the base. Origin is no part of it.
func RequestKey(req *manifest.PackageRequest) string {
	h := sha256.New()
	io.WriteString(h, "package request, 1\n")
	arch, err := DebArch(req.Arch)
	if err != nil {
		arch = req.Arch
	}
	kind := req.Kind
	if kind == "" {
		kind = "deb"
	}
	fmt.Fprintf(h, "%q %q %q %t\n", kind, arch, variant(req), req.Recommends)
	for _, n := range requestNames(req) {
		fmt.Fprintf(h, "name %q\n", n)
	}
	for _, r := range req.Repos {
		fmt.Fprintf(h, "repo %q %q %q\n", strings.TrimRight(r.Mirror, "/"), r.Suite, components(r))
	}
	if req.Base != nil {
		fmt.Fprintf(h, "base %s\n", RequestKey(req.Base))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func variant(req *manifest.PackageRequest) string {
	if req.Variant == "" {
		return VariantEssential
	}
	return req.Variant
}

// requestNames returns the names sorted, each once: the answer must not depend on
// the order in which a rule file collects them.
func requestNames(req *manifest.PackageRequest) []string {
	return slices.Compact(slices.Sorted(slices.Values(req.Names)))
}

// components returns those of a repository: sorted, each once, "main" if it names
// none. A flat repository (its suite ends in "/") has none.
func components(r manifest.DebRepo) []string {
	if strings.HasSuffix(r.Suite, "/") {
		return nil
	}
	if len(r.Components) == 0 {
		return []string{"main"}
	}
	return slices.Compact(slices.Sorted(slices.Values(r.Components)))
}

var (
	nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]*(:[a-z0-9-]+)?([=/][A-Za-z0-9.+~:-]+)?$`)
	// Words of a line in sources.list; what else they may hold would end one.
	wordForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+~_/-]*$`)
	flatForm = regexp.MustCompile(`^[A-Za-z0-9./_~-]*/$`)
)

// splitName takes apart what apt-get install takes: name, name:arch, name=version,
// name/suite.
func splitName(s string) (name, arch, rest string) {
	if i := strings.IndexAny(s, "=/"); i >= 0 {
		s, rest = s[:i], s[i:]
	}
	name, arch, _ = strings.Cut(s, ":")
	return name, arch, rest
}

// check finds what is wrong with a request before anything is asked.
func check(req *manifest.PackageRequest) error {
	if req.Kind != "" && req.Kind != "deb" {
		return &sources.Error{Msg: fmt.Sprintf("packages of kind %q cannot be resolved by apt", req.Kind), Hint: `use kind "deb"`}
	}
	if _, err := DebArch(req.Arch); err != nil {
		return err
	}
	switch variant(req) {
	case VariantEssential, VariantMinbase, VariantNone:
	default:
		return &sources.Error{Msg: fmt.Sprintf("variant %q is not known", req.Variant), Hint: "one of essential, minbase, none"}
	}
	for _, n := range req.Names {
		if !nameForm.MatchString(n) {
			return &sources.Error{
				Msg:  fmt.Sprintf("%q is not the name of a package", n),
				Hint: "write name, name:architecture, name=version or name/suite; names have lower-case letters, digits, and + - .",
			}
		}
	}
	if len(req.Repos) == 0 {
		return &sources.Error{Msg: "packages are asked for, and no repository", Hint: `give at least one deb_repo("bookworm")`}
	}
	for _, r := range req.Repos {
		flat := strings.HasSuffix(r.Suite, "/")
		if flat && !flatForm.MatchString(r.Suite) || !flat && !wordForm.MatchString(r.Suite) {
			return &sources.Error{Msg: fmt.Sprintf("%q is not the name of a suite", r.Suite), Hint: `write "bookworm" or "bookworm-security"`}
		}
		if flat && len(r.Components) > 0 {
			return &sources.Error{Msg: fmt.Sprintf("the flat repository %q has components", r.Suite), Hint: `leave them out, or take the "/" from the suite's end`}
		}
		for _, c := range components(r) {
			if !wordForm.MatchString(c) {
				return &sources.Error{Msg: fmt.Sprintf("%q is not the name of a component", c), Hint: `write "main"`}
			}
		}
		if r.Keyring != "" && !filepath.IsAbs(r.Keyring) {
			return &sources.Error{Msg: fmt.Sprintf("the keyring %q has no absolute path", r.Keyring), Hint: "name a file of this machine"}
		}
	}
	if req.Base != nil {
		a, _ := DebArch(req.Arch)
		if b, err := DebArch(req.Base.Arch); err == nil && a != b {
			return &sources.Error{Msg: fmt.Sprintf("packages for %s on top of a base for %s", a, b), Hint: "give both the same architecture"}
		}
		return check(req.Base)
	}
	return nil
}

// RequestError says which request an error belongs to.
type RequestError struct {
	Request *manifest.PackageRequest
	Err     error
}

// Error puts the position in the rule file before the error.
func (e *RequestError) Error() string {
	if o := e.Request.Origin; o.File != "" {
		return fmt.Sprintf("%s:%d: %v", o.File, o.Line, e.Err)
	}
	return e.Err.Error()
}

// Unwrap returns the error without the position.
func (e *RequestError) Unwrap() error { return e.Err }
