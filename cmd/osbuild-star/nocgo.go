//go:build !cgo

package main

// builtWithCgo tells that the program is linked with cgo; see cgo.go.
const builtWithCgo = false
