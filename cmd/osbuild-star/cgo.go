//go:build cgo

package main

// builtWithCgo tells that the program is linked with cgo: as the agent it could not
// change the privileges of all its threads, nor run where there is no libc.
const builtWithCgo = true
