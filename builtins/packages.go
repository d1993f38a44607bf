// deb_repo and deb_packages: sets of packages by name, which are resolved into
// exact archives before anything is built.

package builtins

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"go.starlark.net/starlark"

	"github.com/osbuild-star/osbuild-star/manifest"
)

var packageTable = []Builtin{
	{
		Name:   "deb_repo",
		Doc:    "A repository of Debian packages.",
		Result: "deb_repo",
		Params: []Param{
			{Name: "suite", Type: "string", Doc: `Name of the suite: "bookworm", "bookworm-security".`},
			{Name: "components", Type: "list[string]", Default: `["main"]`, Doc: "Its components."},
			{Name: "mirror", Type: "string | None", Default: "None", Doc: "Where it is; None is the mirror that the host's apt is configured with.", Keyword: true},
			{Name: "keyring", Type: "string | source | None", Default: "None", Keyword: true,
				Doc: "File with the keys that sign it: a path on the host, or file(\"…\") of the workspace; None is the archive keyring of Debian."},
			{Name: "optional", Type: "bool", Default: "False", Keyword: true,
				Doc: "Do without it for an architecture that it is not made for, instead of failing."},
		},
		run: runDebRepo,
	},
	{
		Name: "deb_packages",
		Doc: "A set of Debian packages by name, with all that they depend on. It is resolved before the build, by apt in a root of its own, " +
			"and what it resolved to stands in osbuild-star.lock. Among the inputs of a stage it is the files of all its packages.",
		Result: "deb_packages",
		Params: []Param{
			{Name: "repos", Type: "list[deb_repo]", Doc: "Where packages come from."},
			{Name: "names", Type: "list[string]", Doc: `What to install, as apt-get takes it: "name", "name=version", "name/suite".`},
			{Name: "arch", Type: "string | None", Default: "None", Doc: "Architecture of the set; None is the host's.", Keyword: true},
			{Name: "recommends", Type: "bool", Default: "False", Doc: "Take recommended packages too.", Keyword: true},
			{Name: "variant", Type: "string", Default: `"essential"`, Keyword: true,
				Doc: "What is in the set unasked: \"essential\" packages, \"minbase\" (and those of priority required), or \"none\"."},
			{Name: "base", Type: "deb_packages | None", Default: "None", Doc: "What is installed already: its packages are taken into account, and left out.", Keyword: true},
		},
		run: runDebPackages,
	},
}

func runDebRepo(c *call) (starlark.Value, error) {
	repo := manifest.DebRepo{Mirror: strings.TrimRight(c.str("mirror"), "/"), Suite: c.str("suite"), Components: c.strs("components"), Optional: c.bool("optional")}
	if bad := func(s string) bool { return s == "" || strings.ContainsAny(s, " \t\n[]") }; bad(repo.Suite) {
		return nil, c.fail("suite", "", "%q is not the name of a suite", repo.Suite)
	} else if i := slices.IndexFunc(repo.Components, bad); i >= 0 || len(repo.Components) == 0 {
		return nil, c.fail("components", `for example ["main", "contrib"]`, "components are a list of names")
	}
	if repo.Mirror != "" {
		u, err := url.Parse(repo.Mirror)
		if err != nil || !slices.Contains([]string{"http", "https", "file"}, u.Scheme) || strings.ContainsAny(repo.Mirror, " \t\n") {
			return nil, c.fail("mirror", "https://…, http://… or file:///…; leave it out for the mirror of the host", "%q is not the URL of a mirror", repo.Mirror)
		}
	}
	switch v := c.args["keyring"].(type) {
	case starlark.String:
		if !strings.HasPrefix(string(v), "/") {
			return nil, c.fail("keyring", fmt.Sprintf("for a file of the workspace write keyring = file(%s)", v), "%s is not an absolute path", v)
		}
		repo.Keyring = string(v)
	case *sourceValue:
		if v.path == "" {
			return nil, c.fail("keyring", "", "the keyring must be a file of the workspace, or a path on the host")
		}
		repo.Keyring = v.path
	}
	text := fmt.Sprintf("deb_repo(%q, [%s]", repo.Suite, quoteAll(repo.Components))
	if repo.Mirror != "" {
		text += fmt.Sprintf(", mirror = %q", repo.Mirror)
	}
	if repo.Keyring != "" {
		text += fmt.Sprintf(", keyring = %q", repo.Keyring)
	}
	if repo.Optional {
		text += ", optional = True"
	}
	return &repoValue{repo: repo, value: value{
		typ: "deb_repo", text: text + ")",
		attrs: starlark.StringDict{"suite": starlark.String(repo.Suite), "mirror": noneOr(repo.Mirror), "components": fromPlain(anyList(repo.Components))},
	}}, nil
}

func runDebPackages(c *call) (starlark.Value, error) {
	arch, err := c.archName("arch")
	if err != nil {
		return nil, err
	}
	r := &manifest.PackageRequest{
		Kind: "deb", Names: c.strs("names"), Arch: arch, Recommends: c.bool("recommends"), Variant: c.str("variant"), Origin: c.origin(),
	}
	for _, v := range c.items("repos") {
		r.Repos = append(r.Repos, v.(*repoValue).repo)
	}
	if len(r.Repos) == 0 {
		return nil, c.fail("repos", `for example [deb_repo("bookworm")]`, "there must be at least one repository")
	}
	if known := []string{"essential", "minbase", "none"}; !slices.Contains(known, r.Variant) {
		return nil, c.fail("variant", didYouMean(r.Variant, known), "there is no variant %q", r.Variant)
	}
	for _, name := range r.Names {
		if name == "" || strings.ContainsAny(name, " \t\n,;'\"") || strings.HasPrefix(name, "-") {
			return nil, c.fail("names", "each package is a string of its own", "%q is not the name of a package", name)
		}
	}
	if b, ok := c.args["base"].(*packagesValue); ok {
		if b.request.Arch != arch {
			return nil, c.fail("base", "", "the base is for architecture %q, this set for %q", b.request.Arch, arch)
		}
		r.Base = b.request
	}
	slices.Sort(r.Names)
	r.Names = slices.Compact(r.Names)
	return &packagesValue{request: r, key: requestKey(r), value: value{
		typ: "deb_packages", text: fmt.Sprintf("<deb_packages of %d names at %s>", len(r.Names), originOf(r.Origin)),
		attrs: starlark.StringDict{"names": fromPlain(anyList(r.Names)), "arch": noneOr(arch)},
	}}, nil
}

func anyList(list []string) []any {
	out := make([]any, len(list))
	for i, s := range list {
		out[i] = s
	}
	return out
}

// requestKey is equal for equal requests, wherever they are written.
func requestKey(r *manifest.PackageRequest) string {
	type bare manifest.PackageRequest
	b := bare(*r)
	b.Origin, b.Base = manifest.Origin{}, nil
	data, err := json.Marshal(b)
	if err != nil {
		return fmt.Sprintf("%p", r) // strings and bools: it cannot be
	}
	if r.Base == nil {
		return string(data)
	}
	return string(data) + "+" + requestKey(r.Base)
}
