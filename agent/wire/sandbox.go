// What the native sandbox is told.
package wire

// Sandbox is what a copy of the program has to know to become the first process of a
// build root of the native sandbox. It is an argument of it, as JSON.
type Sandbox struct {
	Root    string   `json:"root"`    // the composed root directory, a mount point
	Agent   string   `json:"agent"`   // the agent, as it is seen inside
	Cgroups []string `json:"cgroups"` // directories of the groups to join first
	Caps    []string `json:"caps"`    // kept, as far as the caller has them
	Network bool     `json:"network"` // it is in the host's network, which is left as it is
}
