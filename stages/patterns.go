// Patterns that the schemas of several stages have in common, as they stand inside
// a JSON string. They are in the syntax of Go's regexp package, which has no
// lookahead.
package stages

const (
	// confName is the name of a file "*.conf", without a directory.
	confName = `^[\\p{L}\\p{N}_.-]{1,250}[.]conf$`

	// oneName is a part of a path that does not begin with "..".
	oneName = `(?:[^/.\\n][^/\\n]*|[.][^/.\\n][^/\\n]*|[.])`
	// innerName is a part of a path, maybe empty, that is not "..".
	innerName = `(?:[^/.\\n][^/\\n]*|[.][^/.\\n][^/\\n]*|[.][.][^/\\n]+|[.])?`
	// moreNames is what follows the first part of a path; only its last may be "..".
	moreNames = `(?:/` + innerName + `)*/[^/\\n]*`
	// plainPath is a path that does not begin with ".." nor has "/../" in it.
	plainPath = `(?:` + oneName + `(?:` + moreNames + `)?|` + moreNames + `)`
)
