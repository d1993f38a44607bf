// Package report makes a page of a build: one file of HTML that needs nothing else,
// with where the time went, what is in the images, and what changed since the build
// before.
//
// A tour: the command fills an [Input] with what it knows at the end of a build, also
// of one that failed; [Write] turns it into the page. content.go reads what is in a
// tree, diff.go compares with an earlier build, critical.go finds what the end waited
// for, data.go makes what the page shows. The page itself is page.html, with page.css
// and page.js; data stand in it as JSON, so that no name of a file can become code.
package report

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/osbuild-star/osbuild-star/monitor"
)

// Input is all that a report is made from.
type Input struct {
	Version string // of the command
	Command string // as it was started
	Targets []string
	Past    monitor.Past
	Stages  []Stage
	Images  []Image
	Before  map[string]*Made // by target: the last builds, where there are no images
	Failure *Failure         // nil: the build succeeded
	Machine Machine
}

// Stage is a stage of the plan.
type Stage struct {
	MadeStage
	ID     string
	Target string
	File   string // of the rule that made it, "" where it is not known
	Line   int
	Needs  []string // nodes of stages, and checksums of sources
	Stored bool
	Layer  int64
}

// Node names the stage in Needs.
func (s Stage) Node() string { return s.Key + " " + s.ID }

// Image is an artifact.
type Image struct {
	Label  string
	Dir    string // where its files are, as a person writes it
	Made   Made
	Trees  []Tree
	Before *Made // the last build of another tree; nil: there is none
	Same   bool  // the build before this one made this very tree
	Old    []Tree
	Note   string // why there are no trees
}

// Tree is the content of a tree of an image.
type Tree struct {
	Pipeline string
	Content  *Content
}

// Failure is why a build failed.
type Failure struct {
	Message     string
	Hint        string
	Interrupted bool
	Lines       []string // more of the message
	Stages      []FailedStage
}

// FailedStage is a stage that failed: several, where a build goes on after one.
type FailedStage struct {
	Message  string   `json:"message"`
	Hint     string   `json:"hint,omitempty"`
	Type     string   `json:"type"`
	ID       string   `json:"id"`
	Pipeline string   `json:"pipeline"`
	Target   string   `json:"target,omitempty"`
	Rule     string   `json:"rule,omitempty"`
	Output   []string `json:"output"`
}

// Machine is where a build ran.
type Machine struct {
	Arch   string `json:"arch"`
	CPUs   int    `json:"cpus"`
	Model  string `json:"model"`
	Memory int64  `json:"memory"`
	Kernel string `json:"kernel"`
	Store  string `json:"store"`
	Jobs   int    `json:"jobs"`
}

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS string

//go:embed page.js
var pageJS string

// Write writes the page.
func Write(w io.Writer, in Input) error {
	// The encoder writes <, > and & as escapes: no text ends the element it is in.
	b, err := json.Marshal(newData(in, time.Now()))
	if err != nil {
		return fmt.Errorf("making a report: %w", err)
	}
	_, err = strings.NewReplacer("/*css*/", pageCSS, "/*js*/", pageJS, "/*data*/", string(b)).WriteString(w, pageHTML)
	return err
}
