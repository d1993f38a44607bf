// Package arch holds the architecture: its test says which package may import
// which, what the agent may reach, and what no file may contain. There is no code
// in it.
package arch
