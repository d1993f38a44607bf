// Checksums as manifests write them: the name of the algorithm, a colon, and
// lower-case hexadecimal digits.
package sources

import (
	"encoding/hex"
	"fmt"
	"hash"
	"strings"

	"github.com/osbuild-star/osbuild-star/store"
)

// CheckChecksum reports whether a string is a checksum that Fetch can hold a file
// against: "md5", "sha1", "sha256", "sha384" or "sha512", a colon, and as many
// lower-case hexadecimal digits as that algorithm makes.
func CheckChecksum(checksum string) error {
	_, err := newHash(checksum)
	return err
}

// newHash returns the hash that a checksum is made with.
func newHash(checksum string) (hash.Hash, error) {
	algo, digits, ok := strings.Cut(checksum, ":")
	h := store.NewHash(algo) // those that upstream osbuild's schema of sources allows
	if !ok || h == nil {
		return nil, &Error{
			Msg:  fmt.Sprintf("%q is not a checksum", checksum),
			Hint: `write "sha256:" and 64 hexadecimal digits (md5, sha1, sha384 and sha512 are known too)`,
		}
	}
	if _, err := hex.DecodeString(digits); err != nil || len(digits) != 2*h.Size() || digits != strings.ToLower(digits) {
		return nil, &Error{
			Msg:  fmt.Sprintf("%q is not a checksum", checksum),
			Hint: fmt.Sprintf("%q takes %d lower-case hexadecimal digits", algo+":", 2*h.Size()),
		}
	}
	return h, nil
}

// sumText writes the state of a hash as a checksum of the same algorithm as like.
func sumText(like string, h hash.Hash) string {
	algo, _, _ := strings.Cut(like, ":")
	return algo + ":" + hex.EncodeToString(h.Sum(nil))
}
