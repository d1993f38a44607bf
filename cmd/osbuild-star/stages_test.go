// Stages of the tests: the test program is the agent of build roots too, so they
// are there in its builds.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/osbuild-star/osbuild-star/stages"
)

func init() {
	stages.Register(&stages.Stage{
		Name: "org.osbuild-star.test.sleep", Revision: 1, Summary: "sleep, in a program of the build root",
		Schema: `{"options": {"type": "object", "additionalProperties": false, "required": ["token"], "properties": {
  "token": {"type": "string", "description": "name of the program"}}}, "devices": {"type": "object"}}`,
		Run: func(c *stages.Context) error {
			var o struct {
				Token string `json:"token"`
			}
			if err := c.Decode(&o); err != nil {
				return err
			}
			var at []string
			for name, d := range c.Devices {
				at = append(at, name+" at "+d.Path)
			}
			for name, m := range c.Mounts {
				at = append(at, name+" on "+m.Path)
			}
			fmt.Fprintf(c.Log, "%s sleeps with %s\n", o.Token, strings.Join(at, ", "))
			cmd := c.Cmd("sleep", "1000")
			cmd.Args[0] = o.Token
			return cmd.Run()
		},
	})
	stages.Register(&stages.Stage{
		Name: "org.osbuild-star.test.gate", Revision: 1, Summary: "wait until the source files it has as inputs are executable",
		Schema: `{"options": {"type": "object", "additionalProperties": false}, "inputs": {"type": "object"}}`,
		Run: func(c *stages.Context) error {
			for _, in := range c.Inputs {
				for name := range in.Data.Files {
					fmt.Fprintln(c.Log, "the gate is here")
					for {
						st, err := os.Stat(filepath.Join(in.Path, name))
						if err != nil {
							return err
						}
						if st.Mode()&0o100 != 0 {
							break
						}
						time.Sleep(10 * time.Millisecond)
					}
				}
			}
			return nil
		},
	})
	stages.Register(&stages.Stage{
		Name: "org.osbuild-star.test.tool", Revision: 1, Summary: "need programs that no host has",
		Schema: `{"options": {"type": "object", "additionalProperties": false}}`,
		Tools:  []string{"osbuild-star-no-such-program", "mkfs.osbuild-star-neither"},
		Run:    func(c *stages.Context) error { return nil },
	})
	stages.Register(&stages.Stage{
		Name: "org.osbuild-star.test.marker", Revision: 1, Summary: "copy a file of the build root that hosts do not have",
		Schema: `{"options": {"type": "object", "additionalProperties": false}}`,
		Run: func(c *stages.Context) error {
			b, err := os.ReadFile("/usr/share/build-env")
			if err != nil {
				return errors.New("no /usr/share/build-env")
			}
			return os.WriteFile(c.TreePath("/seen"), b, 0o644)
		},
	})
	stages.Register(&stages.Stage{
		Name: "org.osbuild-star.test.self", Revision: 1, Summary: "put a program into the tree that needs no library: this one",
		Schema: `{"options": {"type": "object", "additionalProperties": false}}`,
		Run: func(c *stages.Context) error {
			b, err := os.ReadFile("/proc/self/exe")
			if err != nil {
				return err
			}
			return os.WriteFile(c.TreePath("/usr/bin/osbuild-star"), b, 0o755)
		},
	})
	stages.Register(&stages.Stage{
		Name: "org.osbuild-star.test.fill", Revision: 1, Summary: "make many directories",
		Schema: `{"options": {"type": "object", "additionalProperties": false}}`,
		Run: func(c *stages.Context) error {
			return c.Run("sh", "-c", "cd "+c.Tree+" && mkdir $(seq 500)")
		},
	})
	stages.Register(&stages.Stage{
		Name: "org.osbuild-star.test.talk", Revision: 1, Summary: "print lines and fail with a hint",
		Schema: `{"options": {"type": "object", "additionalProperties": false, "properties": {
  "lines": {"type": "integer", "description": "how many"}}}}`,
		Run: func(c *stages.Context) error {
			var o struct {
				Lines int `json:"lines"`
			}
			if err := c.Decode(&o); err != nil {
				return err
			}
			for i := range o.Lines {
				fmt.Fprintf(c.Log, "line %d of the output\n", i+1)
			}
			return &stages.Error{Msg: "it does not work", Hint: "do something else"}
		},
	})
}
