// Package sources brings files into a store directory, each named by its checksum.
//
// A tour: [FromManifest] lists what a manifest's sources hold, [Needed] what some
// of its pipelines read, and [Fetcher.Fetch] makes all of it present: fetched by
// HTTP, copied from this machine, or decoded from the manifest itself. A file that
// is in the directory has been verified before it got its name there, so whoever
// finds one trusts it; only its size is looked at.
//
// How package names become exact archives is in the packages below: sources/apt
// asks apt, sources/lock remembers the answers.
package sources

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/osbuild-star/osbuild-star/manifest"
)

// The types of sources that FromManifest understands. Their names, and the shapes
// of their items, are those of upstream osbuild's schemas.
const (
	TypeCurl   = "org.osbuild.curl"
	TypeInline = "org.osbuild.inline"
)

// Item is one file: its checksum, and where it comes from. Inline and Path win over
// URLs.
type Item struct {
	Checksum string   // "sha256:HEX", or md5, sha1, sha384, sha512
	Type     string   // the source type that it stands in
	URLs     []string // http, https or file; tried in this order
	Size     int64    // bytes, 0 when not known
	Path     string   // a file of this machine
	Inline   []byte   // the content; not nil, but perhaps empty, when it is inline
	Packed   bool     // Inline is compressed, as .xz or .lzma

	Insecure bool   // the server's certificate is not looked at
	Secrets  string // what the server wants to see: "" or "org.osbuild.mtls"
}

// FromManifest lists the items of all sources of a manifest, sorted by type and
// checksum. local names files of this machine by checksum; an item that is in it
// comes from there, whatever its source says.
//
// It is an error if an item cannot be fetched: its source type is not known, its
// checksum or its URL is none, or it wants secrets that are not supported.
func FromManifest(m *manifest.Manifest, local map[string]string) ([]Item, error) {
	var items []Item
	for _, typ := range slices.Sorted(maps.Keys(m.Sources)) {
		src := m.Sources[typ]
		for _, sum := range slices.Sorted(maps.Keys(src.Items)) {
			it := Item{Checksum: sum, Type: typ}
			if err := CheckChecksum(sum); err != nil {
				return nil, fmt.Errorf("source %s: %w", typ, err)
			}
			var err error
			if p, ok := local[sum]; ok {
				it.Path = p
			} else if err = it.decode(src.Items[sum]); err != nil {
				return nil, fmt.Errorf("source %s: item %s: %w", typ, sum, err)
			}
			items = append(items, it)
		}
	}
	return items, nil
}

// decode fills in what the manifest says about an item.
func (it *Item) decode(v any) error {
	switch it.Type {
	case TypeCurl:
		return it.decodeCurl(v)
	case TypeInline:
		return it.decodeInline(v)
	}
	return &Error{
		Msg:  "sources of this type cannot be fetched",
		Hint: "the types that can are " + TypeCurl + " and " + TypeInline,
	}
}

func (it *Item) decodeCurl(v any) error {
	var list []any
	switch v := v.(type) {
	case string:
		list = []any{v}
	case map[string]any:
		list = []any{v["url"]}
		// Not upstream's: more places of the same file, and its size.
		if more, ok := v["mirrors"].([]any); ok {
			list = append(list, more...)
		}
		if n, ok := v["size"].(json.Number); ok {
			it.Size, _ = n.Int64()
		}
		it.Insecure, _ = v["insecure"].(bool)
		if s, ok := v["secrets"].(map[string]any); ok {
			it.Secrets, _ = s["name"].(string)
			if it.Secrets != secretsMTLS {
				return &Error{
					Msg:  fmt.Sprintf("secrets %q are not supported", it.Secrets),
					Hint: secretsMTLS + " is: a client key and certificate named by the environment",
				}
			}
		}
	}
	if len(list) == 0 {
		return fmt.Errorf("it is neither a URL nor an object with one")
	}
	for _, u := range list {
		s, ok := u.(string)
		if !ok {
			return fmt.Errorf("its URL is not a string")
		}
		if _, err := parseURL(s); err != nil {
			return err
		}
		it.URLs = append(it.URLs, s)
	}
	return nil
}

func (it *Item) decodeInline(v any) error {
	m, _ := v.(map[string]any)
	enc, _ := m["encoding"].(string)
	text, ok := m["data"].(string)
	if !ok {
		return fmt.Errorf("it has no data")
	}
	switch enc {
	case "base64":
	case "lzma+base64":
		it.Packed = true
	default:
		return fmt.Errorf("encoding %q is not known (base64 and lzma+base64 are)", enc)
	}
	data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		return fmt.Errorf("its data are not base64: %w", err)
	}
	if data == nil {
		data = []byte{}
	}
	it.Inline = data
	if !it.Packed {
		it.Size = int64(len(data))
	}
	return nil
}

// Needed keeps the items that the stages of the named pipelines read, in the order
// of items. Pipelines that these build on are not looked at: name them too.
func Needed(m *manifest.Manifest, items []Item, pipelines ...string) []Item {
	var stages []*manifest.Stage
	for _, name := range pipelines {
		if p := m.Pipeline(name); p != nil {
			stages = append(stages, p.Stages...)
		}
	}
	return NeededBy(stages, items)
}

// NeededBy keeps the items that these stages read, in the order of items.
func NeededBy(stages []*manifest.Stage, items []Item) []Item {
	want := map[string]bool{}
	for _, s := range stages {
		for _, in := range s.Inputs {
			if in.Origin != manifest.OriginSource {
				continue
			}
			for _, r := range in.References {
				want[r.ID] = true
			}
		}
	}
	var out []Item
	for _, it := range items {
		if want[it.Checksum] {
			out = append(out, it)
		}
	}
	return out
}

// Path is where a file of that checksum is in a store directory, once it is there.
func Path(dir, checksum string) string { return filepath.Join(dir, checksum) }

// Have says whether a store directory has a file: one of that checksum and, when
// size is not 0, of that size in bytes. The content is not read: it was verified
// before the file got its name.
func Have(dir, checksum string, size int64) bool {
	fi, err := os.Lstat(Path(dir, checksum))
	return err == nil && fi.Mode().IsRegular() && (size == 0 || fi.Size() == size)
}

// local tells whether the item comes from this machine.
func (it *Item) local() bool { return it.Inline != nil || it.Path != "" }

// merge joins items of the same checksum.
func merge(items []Item) []Item {
	at := make(map[string]int, len(items))
	var out []Item
	for _, it := range items {
		i, ok := at[it.Checksum]
		if !ok {
			at[it.Checksum] = len(out)
			it.URLs = append([]string(nil), it.URLs...)
			out = append(out, it)
			continue
		}
		o := &out[i]
		for _, u := range it.URLs {
			if !slices.Contains(o.URLs, u) {
				o.URLs = append(o.URLs, u)
			}
		}
		if o.Size == 0 {
			o.Size = it.Size
		}
		if o.Path == "" {
			o.Path = it.Path
		}
		if o.Inline == nil {
			o.Inline, o.Packed = it.Inline, it.Packed
		}
		if o.Secrets == "" {
			o.Secrets = it.Secrets
		}
	}
	return out
}
