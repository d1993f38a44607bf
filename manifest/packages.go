// Package sets: what a rule file asks for, and the exact archives that it
// resolved to. Plain data, shared by the language (which asks) and the sources
// (which answer); nothing here runs a resolver.
package manifest

// PackageRequest asks for a set of packages by name. Equal requests have equal
// keys and are resolved once.
type PackageRequest struct {
	Kind       string // "deb"
	Repos      []DebRepo
	Names      []string        // as apt-get install takes them: name, name=version, name/suite
	Arch       string          // "x86_64", "s390x", …; "" is the host's
	Recommends bool            // install recommended packages too
	Variant    string          // "essential" (default), "minbase" = priority required too, "none" = only Names
	Base       *PackageRequest // what is installed already; its packages are left out of the answer
	Origin     Origin
}

// DebRepo is one apt repository. An empty Mirror means the one that the host's
// apt is configured with for that suite.
type DebRepo struct {
	Mirror     string   // base URL, or ""
	Suite      string   // "bookworm", "bookworm-security"
	Components []string // ["main"]
	Keyring    string   // file with the keys that sign it; "" is the Debian archive keyring
	Optional   bool     // do without it when it was not made for the architecture
}

// Package is one exact package archive.
type Package struct {
	Name    string
	Version string
	Arch    string // Debian's name: "amd64", "all"
	URL     string // where to fetch it, made from the mirror in use
	Size    int64  // bytes
	SHA256  string // lower-case hex
}
