// Package mutant proves that the tests of the build root's rules can fail: each file of
// testdata takes one rule out of the program, and the test that it names must then find
// it missing.
//
// A file is a txtar archive. Its comment says what the rule is and how the test is
// started; each file of the archive is a piece of source to be found exactly once,
// a line "====", and what comes in its place:
//
//	rule: a dangling /lib64 is an error
//	test: ./buildroot -run ^TestCompose$
//	-- buildroot/root.go --
//	if needsLib64 {
//	====
//	if false {
//
// The program is compiled with the changed files laid over the real ones (go test
// -overlay), so nothing of the checkout is touched.
package mutant
