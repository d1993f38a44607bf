// Package start makes every program that imports it the agent, when it is started
// under the agent's name.
//
// The agent takes over while the packages of the program are still being
// initialised: those that only the command needs (the language, HTTP, apt) have
// their turn after it, by the order of their import paths, and so never. A worker
// is started for each stage, and they were half of its cost. Only for a stage that one
// of those packages registers all are initialised, and main calls [agent.Main].
package start

import (
	"os"

	"github.com/osbuild-star/osbuild-star/agent"
)

func init() {
	if agent.Is(os.Args) {
		if status, ended := agent.Early(os.Args); ended {
			os.Exit(status)
		}
	}
}
