// What the page shows, as it stands in it.
package report

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/osbuild-star/osbuild-star/monitor"
)

// data is the JSON of the page.
type data struct {
	Version  string      `json:"version"`
	Command  string      `json:"command"`
	Targets  []string    `json:"targets"`
	Started  time.Time   `json:"started"`
	Seconds  float64     `json:"seconds"`
	Failure  *failure    `json:"failure,omitempty"`
	Machine  Machine     `json:"machine"`
	Counts   counts      `json:"counts"`
	Rows     []string    `json:"rows"`
	Spans    []span      `json:"spans"`
	Samples  [][]float64 `json:"samples"` // time, CPU, build's CPU, memory, available, read, written, free
	Critical []Link      `json:"critical"`
	Stages   []stage     `json:"stages"`
	Images   []image     `json:"images"`
	Warnings []string    `json:"warnings,omitempty"`
}

type failure struct {
	Message     string        `json:"message"`
	Hint        string        `json:"hint,omitempty"`
	Interrupted bool          `json:"interrupted"`
	Lines       []string      `json:"lines"`
	Stages      []FailedStage `json:"stages"`
}

type counts struct {
	Run       int     `json:"run"`
	Store     int     `json:"store"` // found in the store, or below what was
	Failed    int     `json:"failed"`
	Blocked   int     `json:"blocked"`
	Downloads int     `json:"downloads"`
	Bytes     int64   `json:"bytes"`
	Peak      int64   `json:"peak"` // memory
	CPU       float64 `json:"cpu"`  // percent of the machine, on average
}

// span is a bar of the timeline.
type span struct {
	Row      int     `json:"row"`
	Name     string  `json:"name"`
	Category string  `json:"cat"`
	Begin    float64 `json:"begin"`
	End      float64 `json:"end"`
	Depth    int     `json:"depth"` // spans of its row that it is in
	Pipeline string  `json:"pipeline,omitempty"`
	Target   string  `json:"target,omitempty"`
	ID       string  `json:"id,omitempty"`
	Err      string  `json:"err,omitempty"`
	Open     bool    `json:"open,omitempty"`
	Bytes    int64   `json:"bytes,omitempty"`
	CPU      float64 `json:"cpu,omitempty"`
	RSS      int64   `json:"rss,omitempty"`
	Layer    int64   `json:"layer,omitempty"`
	Rule     string  `json:"rule,omitempty"`
	Critical bool    `json:"critical,omitempty"`
	Local    bool    `json:"local,omitempty"` // a file that was not downloaded: too many of no time to show
}

// What became of a stage.
const (
	ran     = "run"
	stored  = "store"   // looked up, and there
	unasked = "skipped" // below a tree that the store has
	failed  = "failed"
	stopped = "stopped"
	blocked = "blocked" // waits for what failed
	pending = "not run"
	shared  = "shared" // the very layer of a stage above, which another pipeline begins with too
)

type stage struct {
	Pipeline string  `json:"pipeline"`
	Type     string  `json:"type"`
	ID       string  `json:"id"`
	Key      string  `json:"key"`
	Target   string  `json:"target,omitempty"`
	Rule     string  `json:"rule,omitempty"`
	State    string  `json:"state"`
	Why      string  `json:"why,omitempty"`
	Wall     float64 `json:"wall"`
	CPU      float64 `json:"cpu"`
	RSS      int64   `json:"rss"`
	Layer    int64   `json:"layer"`
}

type image struct {
	Label string `json:"label"`
	Dir   string `json:"dir"`
	Files []File `json:"files"`
	Trees []tree `json:"trees"`
	Diff  *diff  `json:"diff,omitempty"`
	Note  string `json:"note,omitempty"`
}

type tree struct {
	Pipeline string    `json:"pipeline"`
	OS       string    `json:"os,omitempty"`
	Database string    `json:"database,omitempty"`
	Size     int64     `json:"size"`
	Files    int       `json:"files"`
	Folders  *Node     `json:"folders"`
	Sections *Node     `json:"sections,omitempty"`
	Packages []Package `json:"packages"`
}

// diff is the difference of an image, with the stages that are not as they were.
type diff struct {
	Diff
	Stages []string `json:"stages"`
}

func newData(in Input, now time.Time) data {
	d := data{
		Version: in.Version, Command: in.Command, Targets: in.Targets, Started: in.Past.Start, Seconds: seconds(in.Past.Total), Machine: in.Machine,
		Rows: []string{}, Spans: []span{}, Samples: samples(in.Past), Stages: []stage{}, Images: []image{}, Warnings: in.Past.Warnings,
	}
	if d.Started.IsZero() {
		d.Started = now
	}
	if d.Targets == nil {
		d.Targets = []string{}
	}
	of := needs{}
	for _, s := range in.Stages {
		of[s.Node()] = s.Needs
	}
	d.Critical = critical(in.Past.Spans, of)
	if d.Critical == nil {
		d.Critical = []Link{}
	}
	d.addSpans(in.Past)
	for _, l := range d.Critical {
		if l.Span >= 0 {
			d.Spans[l.Span].Critical = true
		}
	}
	d.addStages(in)
	for _, i := range in.Images {
		d.Images = append(d.Images, newImage(i))
	}
	if in.Failure != nil {
		d.Failure = newFailure(in)
	}
	for _, s := range d.Samples {
		d.Counts.Peak = max(d.Counts.Peak, int64(s[3]))
		d.Counts.CPU += s[2] / float64(len(d.Samples))
	}
	return d
}

func newFailure(in Input) *failure {
	f := &failure{in.Failure.Message, in.Failure.Hint, in.Failure.Interrupted, in.Failure.Lines, slices.Clone(in.Failure.Stages)}
	if f.Lines == nil {
		f.Lines = []string{}
	}
	if f.Stages == nil {
		f.Stages = []FailedStage{}
	}
	for i := range f.Stages {
		s := &f.Stages[i]
		for _, r := range in.Past.Spans { // without what moves a cursor
			if r.ID == s.ID && r.Category == monitor.CatStage && len(r.Output) > 0 {
				s.Output = r.Output
			}
		}
		if s.Output == nil {
			s.Output = []string{}
		}
	}
	return f
}

func (d *data) addSpans(p monitor.Past) {
	rows := map[monitor.Row]int{}
	for i, r := range p.Rows {
		rows[r] = i
		d.Rows = append(d.Rows, r.Name())
	}
	type at struct {
		row   monitor.Row
		depth int
	}
	depths := map[uint64]at{}
	for _, r := range p.Spans {
		row := monitor.Row{Lane: r.Lane, Row: r.Row}
		depth := 0
		if o, ok := depths[r.Parent]; ok && o.row == row {
			depth = o.depth + 1
		}
		depths[r.Span] = at{row, depth}
		s := span{
			Row: rows[row], Name: r.Name, Category: r.Category, Begin: seconds(r.Begin), End: seconds(r.End), Depth: depth,
			Pipeline: r.Text, Target: r.Target, ID: r.ID, Err: r.Err, Open: r.Open, Bytes: r.Bytes,
		}
		if r.Category == monitor.CatPhase {
			s.ID, s.Target, s.Pipeline = "", "", ""
		}
		if r.Category == monitor.CatSource {
			s.Bytes, s.Pipeline, s.Local = max(r.Bytes, r.Total), "", r.Text != "" && r.Err == ""
			if r.ID != "" && r.Text == "" && !r.Cached && r.Err == "" && !r.Open {
				d.Counts.Downloads++
				d.Counts.Bytes += s.Bytes
			}
		}
		if st := r.Stage; st != nil {
			s.CPU, s.RSS, s.Layer, s.Rule = st.CPU.Seconds(), st.MaxRSS, st.Layer, rule(st.File, st.Line)
		}
		d.Spans = append(d.Spans, s)
	}
}

// addStages joins what was planned with what happened.
func (d *data) addStages(in Input) {
	began := map[string]*monitor.Record{} // by node, and by ID for those that did not end
	for i := range in.Past.Spans {
		if r := &in.Past.Spans[i]; r.Category == monitor.CatStage {
			began[cmp.Or(node(r), r.ID)] = r
		}
	}
	hit := map[string]bool{}
	for _, e := range in.Past.Hits {
		if e.Stage != nil {
			hit[e.Stage.Key+" "+e.ID] = true
		}
	}
	before := map[string]*Made{}
	maps.Copy(before, in.Before)
	for i := range in.Images {
		if b := in.Images[i].Before; b != nil {
			before[in.Images[i].Label] = b
		}
	}
	lost := map[string]bool{}
	if in.Failure != nil {
		for _, s := range in.Failure.Stages {
			lost[s.Pipeline+" "+s.ID] = true
		}
	}
	state := map[string]string{}
	for _, s := range in.Stages {
		r := began[s.Node()]
		if r == nil {
			r = began[s.ID]
		}
		out := stage{
			Pipeline: s.Pipeline, Type: s.Type, ID: s.ID, Key: s.Key, Target: s.Target, Rule: rule(s.File, s.Line), Layer: s.Layer, State: pending,
		}
		switch _, before := state[s.Node()]; {
		case before:
			out.State, r = shared, nil
		case lost[s.Pipeline+" "+s.ID]:
			out.State = failed
		case r != nil && (r.Open || r.Err != ""):
			out.State = stopped
		case r != nil:
			out.State = ran
		case hit[s.Node()]:
			out.State = stored
		case s.Stored:
			out.State = unasked
		default:
			for _, n := range s.Needs {
				if state[n] == failed || state[n] == blocked {
					out.State = blocked
				}
			}
			if in.Failure == nil {
				out.State = unasked // nobody needed it
			}
		}
		if out.State != shared {
			state[s.Node()] = out.State
		}
		if r != nil {
			out.Wall = seconds(r.End - r.Begin)
			out.Why = why(s.MadeStage, before[s.Target])
			if r.Stage != nil {
				out.CPU, out.RSS = r.Stage.CPU.Seconds(), r.Stage.MaxRSS
			}
		}
		switch out.State {
		case ran:
			d.Counts.Run++
		case stored, unasked:
			d.Counts.Store++
		case failed:
			d.Counts.Failed++
		case blocked:
			d.Counts.Blocked++
		}
		d.Stages = append(d.Stages, out)
	}
}

func rule(file string, line int) string {
	if file == "" {
		return ""
	}
	return file + ":" + strconv.Itoa(line)
}

func newImage(in Image) image {
	out := image{Label: in.Label, Dir: in.Dir, Files: in.Made.Files, Trees: []tree{}, Note: in.Note}
	if out.Files == nil {
		out.Files = []File{}
	}
	var now, old *Content
	for _, t := range in.Trees {
		c := t.Content
		packages := c.Packages
		if packages == nil {
			packages = []Package{}
		}
		out.Trees = append(out.Trees, tree{t.Pipeline, c.OS, c.Database, c.Size, c.Files, c.Folders, c.Sections, packages})
		now = cmp.Or(now, c)
	}
	for _, t := range in.Old {
		old = cmp.Or(old, t.Content)
	}
	if b := in.Before; b != nil {
		x := &diff{Diff: Diff{Since: b.Time, Same: in.Same, Seconds: [2]float64{b.Seconds, in.Made.Seconds}}, Stages: []string{}}
		x.Packages, x.Folders = []PackageDiff{}, []FolderDiff{}
		for _, f := range b.Files {
			x.Files[0] += f.Size
		}
		for _, f := range in.Made.Files {
			x.Files[1] += f.Size
		}
		had := map[string]bool{}
		for _, s := range b.Stages {
			had[s.Key] = true
		}
		for _, s := range in.Made.Stages {
			if !had[s.Key] {
				x.Stages = append(x.Stages, s.Pipeline+": "+s.Type+" ("+why(s, b)+")")
			}
		}
		if old != nil && now != nil {
			x.Size = [2]int64{old.Size, now.Size}
			x.Packages, x.Folders = compare(old, now)
		} else {
			x.Unknown = "the tree of that build is not in the store any more"
		}
		out.Diff = x
	}
	return out
}

// maxSamples is how many points a graph has at most: of more, the highest of some
// that follow each other stand for them.
const maxSamples = 600

func samples(p monitor.Past) [][]float64 {
	out := [][]float64{}
	n := (len(p.Counters) + maxSamples - 1) / maxSamples
	for group := range slices.Chunk(p.Counters, max(n, 1)) {
		var v []float64
		for _, e := range group {
			if e.Sample == nil {
				continue
			}
			s := e.Sample
			w := []float64{
				seconds(max(0, e.Time.Sub(p.Start))), s.CPU, s.BuildCPU, float64(s.Memory), float64(s.Available), s.Read, s.Written, float64(s.Free),
			}
			if v == nil {
				v = w
			}
			for i := range w {
				if i == 4 || i == 7 { // what is left
					v[i] = min(v[i], w[i])
				} else {
					v[i] = max(v[i], w[i])
				}
			}
		}
		if v != nil {
			out = append(out, v)
		}
	}
	return out
}
