// The page, in a real browser: what it shows, that its parts work by mouse and by
// keyboard, and that hostile names stay names.
package report

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/osbuild-star/osbuild-star/monitor"
)

// hostile are names that want to be more than that.
var hostile = []string{
	`</script><script>alert(1)</script>`, `<img src=x onerror=alert(1)>`, `"quotes" 'and' more`, "line\nbreak\ttab\x00\x07bell\x1b[31m",
	"<!--", `]]>`, "/*data*/ /*js*/", "\u202eevil\u2028\u2029", `${alert(1)}`, `&lt;b&gt;`, "not UTF-8 \xff\xfe", "__proto__", `javascript:alert(1)`,
}

// example is a build of two images: a download, four stages of which one is from the
// store, and a wait for a slot.
func example() Input {
	var tl monitor.Timeline
	t0 := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	id := uint64(0)
	var events []monitor.Event
	add := func(parent uint64, begin, end float64, e monitor.Event, stage *monitor.Stage) uint64 {
		id++
		at := func(s float64) time.Time { return t0.Add(time.Duration(s * float64(time.Second))) }
		e.Kind, e.Span, e.Parent, e.Time = monitor.Start, id, parent, at(begin)
		events = append(events, e, monitor.Event{Kind: monitor.End, Span: id, Time: at(end), Duration: at(end).Sub(at(begin)), Stage: stage})
		return id
	}
	stage := func(begin, end float64, name, pipeline, key string) {
		add(0, begin, end, monitor.Event{Category: monitor.CatStage, Name: name, ID: "id-" + key, Text: pipeline, Target: "//:a"},
			&monitor.Stage{Key: key, CPU: time.Second, MaxRSS: 3 << 20, Layer: 4 << 20, File: "BUILD.star", Line: 7})
		add(id, begin, begin+0.1, monitor.Event{Category: monitor.CatPhase, Name: "prepare"}, nil)
	}
	tl.Event(monitor.Event{Kind: monitor.Hit, Time: t0, Category: monitor.CatStage, Name: "org.osbuild.mkdir", ID: "id-k0", Text: "os", Stage: &monitor.Stage{Key: "k0"}})
	add(0, 0, 1, monitor.Event{Category: monitor.CatSource, Name: "linux.deb", ID: "sha256:1", Total: 5 << 20, Unit: "bytes"}, nil)
	add(0, 0, 0.1, monitor.Event{Category: monitor.CatSource, Name: "inline", ID: "sha256:2", Text: "the manifest"}, nil) // no bar
	add(0, 0, 0.5, monitor.Event{Category: monitor.CatRoot, Name: "start host (debian12)"}, nil)
	stage(1, 4, "org.osbuild-star.deb", "os", "k1")
	stage(1, 3, "org.osbuild.copy", "other", "k2")
	add(0, 3.5, 3.9, monitor.Event{Category: monitor.CatWait, Name: "org.osbuild.hostname", ID: "id-k3", Text: "os"}, nil)
	stage(4, 6, "org.osbuild.hostname", "os", "k3")
	stage(6, 10, "org.osbuild.qemu", "qcow2", "k4")
	// What ends makes room for what begins then.
	slices.SortStableFunc(events, func(a, b monitor.Event) int {
		return cmp.Or(a.Time.Compare(b.Time), strings.Compare(string(a.Kind), string(b.Kind)))
	})
	for _, e := range events {
		tl.Event(e)
	}
	for i := range 100 {
		tl.Event(monitor.Event{Kind: monitor.Counters, Time: t0.Add(time.Duration(i) * 100 * time.Millisecond), Sample: &monitor.Sample{
			CPU: float64(i), BuildCPU: float64(i) / 2, Memory: int64(i) << 20, Available: 1 << 30, Read: 100, Written: 200, Free: 1 << 32,
		}})
	}
	in := Input{Version: "test", Command: "osbuild-star build //:a //:b", Targets: []string{"//:a", "//:b"}, Past: tl.Past()}
	made := func(i int, pipeline, typ, base string, needs ...string) Stage {
		key := fmt.Sprint("k", i)
		return Stage{
			MadeStage: MadeStage{Pipeline: pipeline, Type: typ, Key: key, Options: "o" + key, Base: base}, ID: "id-" + key, Target: "//:a",
			File: "BUILD.star", Line: 10 + i, Needs: needs, Stored: true, Layer: int64(i) << 20,
		}
	}
	in.Stages = []Stage{
		made(0, "os", "org.osbuild.mkdir", ""), made(1, "os", "org.osbuild-star.deb", "k0", "k0 id-k0", "sha256:1"), made(2, "other", "org.osbuild.copy", ""),
		made(3, "os", "org.osbuild.hostname", "k1", "k1 id-k1"), made(4, "qcow2", "org.osbuild.qemu", "", "k3 id-k3"),
	}
	now := &Content{
		OS: "Debian GNU/Linux 12", Database: "dpkg", Size: 1000 << 10, Files: 5,
		Folders: &Node{"/", 1000 << 10, []*Node{
			{"usr", 900 << 10, []*Node{{"lib", 600 << 10, []*Node{{"libc.so", 600 << 10, nil}}}, {"bin", 300 << 10, nil}}},
			{"etc", 100 << 10, []*Node{}},
		}},
		Sections: &Node{"packages", 1000 << 10, []*Node{{"libs", 600 << 10, []*Node{{"libc6", 600 << 10, nil}}}, {"of no package", 400 << 10, nil}}},
		Packages: []Package{{"bash", "5.2-1", "amd64", "shells", 7 << 20, 6 << 20}, {"libc6", "2.36-9", "amd64", "libs", 12 << 20, 600 << 10}},
		Dirs:     map[string]int64{"usr": 900 << 10, "etc": 100 << 10},
	}
	old := &Content{
		Size: 900 << 10, Packages: []Package{{"libc6", "2.36-8", "amd64", "libs", 0, 500 << 10}, {"nano", "7", "amd64", "editors", 0, 9}}, Dirs: map[string]int64{"usr": 800 << 10, "etc": 100 << 10},
	}
	in.Images = []Image{{
		Label: "//:a", Dir: "out/a", Made: Made{Key: "k4", Files: []File{{"disk.qcow2", 77 << 20}}, Seconds: 10, Stages: []MadeStage{in.Stages[1].MadeStage}},
		Trees: []Tree{{"os", now}}, Old: []Tree{{"os", old}}, Before: &Made{Time: t0, Seconds: 20, Files: []File{{"disk.qcow2", 70 << 20}}, Stages: []MadeStage{in.Stages[0].MadeStage}},
	}, {
		Label: "//:b", Dir: "out/b", Made: Made{Files: []File{{"b.tar", 5}}}, Trees: []Tree{{"b", &Content{OS: "Fedora", Database: "rpm", Size: 5, Files: 1, Folders: &Node{"/", 5, []*Node{{"only", 5, nil}}}}}},
	}}
	return in
}

// show writes the page of a build, and opens it.
func show(t *testing.T, b *browser, in Input) (url string) {
	t.Helper()
	p := filepath.Join(t.TempDir(), "report.html")
	var page bytes.Buffer
	if err := Write(&page, in); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, page.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	url = "file://" + p
	b.open(url)
	return url
}

func TestPage(t *testing.T) {
	b := newBrowser(t)
	url := show(t, b, example())

	b.is(`document.title`, "//:a, //:b – build report")
	b.is(`document.querySelector("h1").textContent`, "//:a, //:b")
	b.is(`document.getElementById("badge").textContent`, "built")
	cards := b.text(`[...document.querySelectorAll(".card")].map(c => c.innerText.replace(/\s+/g, " ")).join("|")`)
	if want := "Total time 10.00 s critical path: 4 steps|Stages run 4 1 from the store|Downloads 1 5.0 MiB|Peak memory 99.0 MiB sum of its processes|"; !strings.HasPrefix(cards, want) {
		t.Errorf("cards %q, want %q", cards, want)
	}
	// One h1, and no level left out.
	b.is(`[...document.querySelectorAll("h1,h2,h3,h4")].filter(h => !h.closest("[hidden]")).map(h => h.tagName).reduce((a, h) => a && +h[1] <= +a[1] + 1 ? h : "", "H0") !== ""`, "true")

	// The timeline: bars where they belong, each with a name.
	b.is(`document.querySelectorAll(".tlb").length`, "7")
	b.is(`document.querySelectorAll(".tlb:not([aria-label])").length`, "0")
	b.is(`document.querySelectorAll(".phase").length`, "4")
	b.is(`document.querySelectorAll(".graph polygon").length`, "5")
	b.is(`document.querySelector('.tlb[aria-label^="qemu"]').style.left`, "60%")
	b.is(`document.querySelector('.tlb[aria-label^="qemu"]').style.width`, "40%")
	b.is(`[...document.querySelectorAll(".tlb.critical")].sort((a, b) => a.dataset.span - b.dataset.span).map(e => e.textContent).join()`, "linux.deb,deb,hostname,qemu")
	b.click(`.tlb[aria-label^="deb"]`)
	detail := b.text(`document.getElementById("detail").innerText.replace(/\s+/g, " ")`)
	for _, want := range []string{"deb · on the critical path", "took 3.00 s", "pipeline os", "CPU 1.00 s", "memory 3.0 MiB", "layer 4.0 MiB", "rule BUILD.star:7", "prepare 0.10 s", "why a new stage"} {
		if !strings.Contains(detail, want) {
			t.Errorf("details %q are without %q", detail, want)
		}
	}
	focused := func(want string) {
		t.Helper()
		b.is(`document.activeElement.textContent`, want)
	}
	b.press(keyHome)
	focused("linux.deb")
	b.press(keyEnd)
	focused("qemu")
	b.press(keyHome + keyRight)
	focused("start host (debian12)")
	b.is(`document.querySelector("#detail strong").textContent`, "start host (debian12)")
	b.press(keyDown)
	focused("linux.deb")
	b.is(`document.querySelectorAll('.tlb[tabindex="0"]').length`, "1")
	width := func() string { return b.text(`document.getElementById("tl-inner").style.width`) }
	b.press("+")
	if got := width(); got != "160%" {
		t.Errorf("zoomed by a key: %s", got)
	}
	b.click("#zoom-in")
	if got := width(); got != "256%" {
		t.Errorf("zoomed by a click: %s", got)
	}
	b.is(`document.getElementById("tl-scroll").scrollWidth > 2 * document.getElementById("tl-scroll").clientWidth`, "true")
	b.click("#zoom-fit")
	if got := width(); got != "100%" {
		t.Errorf("fit: %s", got)
	}
	b.click("#spans summary")
	b.is(`document.querySelectorAll("#spans-table tbody tr").length`, "12")

	// The critical path leads to the timeline.
	b.is(`[...document.querySelectorAll("#critical-table tbody tr")].map(r => r.cells[1].textContent + ":" + r.cells[3].textContent).join()`,
		"linux.deb:,deb:needed its file,hostname:needed its tree,qemu:needed its tree")
	b.click("#critical-table tbody tr:nth-child(3) button")
	focused("hostname")

	// Stages: filters, and sorting.
	rows := func(want string) {
		t.Helper()
		b.is(`[...document.querySelectorAll("#stages-table tbody tr")].map(r => r.cells[0].textContent).join()`, want)
	}
	rows("mkdir,deb,copy,hostname,qemu")
	b.choose("#stage-state", "store")
	rows("mkdir")
	b.choose("#stage-state", "")
	b.choose("#stage-pipeline", "os")
	rows("mkdir,deb,hostname")
	b.write("#stage-search", "star:13")
	rows("hostname")
	b.is(`document.getElementById("stage-count").textContent`, "1 of 5")
	b.write("#stage-search", "o")
	b.choose("#stage-pipeline", "")
	b.click("#stages-table thead th:nth-child(4) button")
	b.is(`document.querySelector("#stages-table thead th:nth-child(4)").getAttribute("aria-sort")`, "descending")
	rows("qemu,deb,copy,hostname,mkdir")
	b.press(keyEnter)
	b.is(`document.querySelector("#stages-table thead th:nth-child(4)").getAttribute("aria-sort")`, "ascending")

	// The treemap: into a part and out of it, by mouse and by keys.
	cells := func(want string) {
		t.Helper()
		b.is(`[...document.querySelectorAll(".cell")].map(c => c.getAttribute("aria-label").split(",").slice(0, 2).join()).join("|")`, want)
	}
	cells("usr, 900.0 KiB|etc, 100.0 KiB")
	b.is(`(() => { const [a, b] = document.querySelectorAll(".cell"); return Math.round(a.offsetWidth * a.offsetHeight / (b.offsetWidth * b.offsetHeight)) })()`, "9")
	b.click(".cell")
	cells("lib, 600.0 KiB|bin, 300.0 KiB")
	b.press(keyEnter)
	cells("libc.so, 600.0 KiB")
	b.is(`document.getElementById("crumbs").innerText.replace(/\s+/g, "")`, "/›usr›lib·600.0KiB")
	b.press(keyBackspace)
	cells("lib, 600.0 KiB|bin, 300.0 KiB")
	focusedName := func(want string) {
		t.Helper()
		b.is(`document.activeElement.getAttribute("aria-label").split(",")[0]`, want)
	}
	focusedName("lib")
	b.press(keyTab)
	focusedName("bin")
	b.click("#crumbs button")
	cells("usr, 900.0 KiB|etc, 100.0 KiB")
	b.click("#sizes-details summary")
	b.click("#sizes-table tbody button")
	cells("lib, 600.0 KiB|bin, 300.0 KiB")
	b.click("#by-package")
	cells("libs, 600.0 KiB|of no package, 400.0 KiB")
	b.is(`document.getElementById("by-package").getAttribute("aria-pressed")`, "true")
	b.click(".cell")
	cells("libc6, 600.0 KiB")

	// Packages and differences.
	b.is(`document.getElementById("packages-h").textContent`, "2 packages")
	b.write("#package-search", "LIB")
	b.is(`[...document.querySelector("#packages-table tbody").rows].map(r => r.innerText.replace(/\s+/g, " ")).join()`, "libc6 2.36-9 amd64 libs 12.0 MiB 600.0 KiB")
	diff := b.text(`document.getElementById("diff").innerText.replace(/\s+/g, " ")`)
	for _, want := range []string{"77.0 MiB (+7.0 MiB)", "it was 20.00 s", "bash added 5.2-1 +6.0 MiB", "nano removed 7 −9 B", "libc6 upgraded 2.36-8 → 2.36-9 +100.0 KiB", "/usr 900.0 KiB +100.0 KiB", "os: deb a new stage"} {
		if !strings.Contains(diff, want) {
			t.Errorf("differences %q are without %q", diff, want)
		}
	}

	// The other image.
	b.choose("#image-select", "1")
	b.is(`document.getElementById("image-h").textContent`, "Image //:b")
	cells("only, 5 B")
	b.is(`document.getElementById("packages-h").textContent`, "Packages: those of rpm trees are not listed")
	b.is(`document.getElementById("by-package").offsetWidth`, "0")
	b.is(`document.getElementById("diff").innerText.includes("first build of this target")`, "true")

	// Nothing hangs over, in a narrow window either, and in the dark all is as readable.
	for _, w := range []int{1360, 420} {
		b.size(w, 900)
		b.is(`document.documentElement.scrollWidth <= innerWidth`, "true")
	}
	b.size(1360, 900)
	for _, dark := range []bool{false, true} {
		b.dark(dark)
		contrast(t, b)
	}
	b.quiet(url)
}

// contrast checks that texts stand out from what they are on (WCAG: 4.5 to 1).
func contrast(t *testing.T, b *browser) {
	t.Helper()
	bad := b.text(`(() => {
		const lum = (c) => { const [r, g, b] = c.map((v) => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; }); return .2126 * r + .7152 * g + .0722 * b; };
		const parse = (s) => (s.match(/[\d.]+/g) || []).map(Number);
		const out = [];
		for (const e of document.querySelectorAll("h1,h2,h3,dt,dd,td,th,p,a,button,.badge,summary,label,li,.tlb,.cell,.tl-labels div")) {
			if (!e.offsetWidth || !e.textContent.trim() || e.classList.contains("wait")) continue;
			let on = e, back = [];
			while (on && (back = parse(getComputedStyle(on).backgroundColor)).length && back[3] === 0) on = on.parentElement;
			if (!on || back[3] === 0) back = parse(getComputedStyle(document.body).backgroundColor);
			const [x, y] = [lum(parse(getComputedStyle(e).color).slice(0, 3)), lum(back.slice(0, 3))].sort((a, b) => b - a);
			const ratio = (x + .05) / (y + .05);
			if (ratio < 4.45) out.push(e.tagName + "." + e.className + " " + e.textContent.trim().slice(0, 20) + " " + ratio.toFixed(2));
		}
		return [...new Set(out)].join("; ");
	})()`)
	if bad != "" {
		t.Errorf("too faint: %s", bad)
	}
}

// A build that failed shows why, and what it held up.
func TestPageOfFailure(t *testing.T) {
	in := example()
	in.Images = nil
	for i := range in.Past.Spans {
		if in.Past.Spans[i].Name == "org.osbuild.hostname" {
			in.Past.Spans[i].Err = "broken"
		}
	}
	in.Past.Spans = in.Past.Spans[:len(in.Past.Spans)-2] // qemu never began
	in.Stages[3].Stored, in.Stages[4].Stored = false, false
	in.Failure = &Failure{
		Message: "a failure", Stages: []FailedStage{{
			Message: "stage org.osbuild.hostname failed", Hint: "do this", Type: "org.osbuild.hostname", ID: "id-k3", Pipeline: "os",
			Target: "//:a", Rule: "BUILD.star:13", Output: []string{"first", "</pre><b>last"},
		}},
	}
	b := newBrowser(t)
	url := show(t, b, in)
	b.is(`document.getElementById("badge").textContent`, "failed")
	text := b.text(`document.getElementById("failure").innerText.replace(/\s+/g, " ")`)
	for _, want := range []string{"stage org.osbuild.hostname failed", "Hint: do this", "BUILD.star:13", "first </pre><b>last", "It blocked 1 stage", "qcow2: qemu (//:a)"} {
		if !strings.Contains(text, want) {
			t.Errorf("the failure %q is without %q", text, want)
		}
	}
	b.is(`[...document.querySelectorAll("#stages-table tbody tr")].map(r => r.cells[2].textContent).join()`, "from the store,run,run,failed,blocked")
	b.is(`document.getElementById("image").hidden`, "true")
	b.quiet(url)
}

// Names from trees and programs are shown, and are never more than text.
func TestPageOfHostileNames(t *testing.T) {
	in := example()
	in.Targets, in.Command = hostile, strings.Join(hostile, " ")
	in.Past.Warnings = hostile
	tree := in.Images[0].Trees[0].Content
	tree.Folders = &Node{Name: "/", Size: 100}
	tree.Packages = nil
	for i, name := range hostile {
		tree.Folders.Kids = append(tree.Folders.Kids, &Node{name, int64(100 + i), []*Node{{name, 7, nil}}})
		tree.Packages = append(tree.Packages, Package{name, name, name, name, 1, 1})
		s := in.Stages[i%5]
		s.Pipeline, s.Type, s.File, s.ID, s.Key = name, name, name, name, name
		in.Stages = append(in.Stages, s)
		in.Images = append(in.Images, Image{Label: name, Dir: name, Made: Made{Files: []File{{name, 1}}}, Note: name})
	}
	for i := range in.Past.Spans {
		r := &in.Past.Spans[i]
		r.Name, r.Text, r.Target, r.Err = hostile[i%len(hostile)], hostile[(i+1)%len(hostile)], hostile[(i+2)%len(hostile)], hostile[(i+3)%len(hostile)]
	}
	in.Failure = &Failure{Message: hostile[0], Lines: hostile, Hint: hostile[2]}
	for _, name := range hostile {
		in.Failure.Stages = append(in.Failure.Stages, FailedStage{name, name, name, name, name, name, name, hostile})
	}
	var page bytes.Buffer
	if err := Write(&page, in); err != nil {
		t.Fatal(err)
	}
	if n := len(regexp.MustCompile(`(?i)</?script`).FindAllString(page.String(), -1)); n != 4 {
		t.Errorf("%d script tags in the page", n)
	}
	b := newBrowser(t)
	url := show(t, b, in)
	b.is(`document.scripts.length`, "2")
	b.is(`document.querySelectorAll("img, b b, main script").length`, "0")
	for i, name := range hostile {
		want, _ := json.Marshal(strings.ToValidUTF8(name, "\ufffd\ufffd"))
		var shown struct{ Same, Clean bool }
		b.script(fmt.Sprintf(`
			const raw = JSON.parse(document.getElementById("data").textContent).images[0].trees[0].packages[%d].name;
			const cell = [...document.querySelectorAll("#packages-table tbody th")][%d].textContent;
			return {Same: raw.replaceAll("\ufffd", "") === %s.replaceAll("\ufffd", ""), Clean: !/[\u0000-\u001f\u2028-\u202e]/.test(cell) && cell.length >= raw.length};`, i, i, want), &shown)
		if !shown.Same || !shown.Clean {
			t.Errorf("%q is not shown as it is: %+v", name, shown)
		}
	}
	b.click(".cell")
	b.press(keyBackspace)
	b.quiet(url)
}

// A build without anything to tell makes a page too.
func TestPageOfNothing(t *testing.T) {
	b := newBrowser(t)
	url := show(t, b, Input{})
	b.is(`document.getElementById("badge").textContent`, "nothing to do")
	b.quiet(url)
}

// OSBUILD_STAR_REPORT names the report of a real build: it is opened, and pictures of
// it go to OSBUILD_STAR_SCREENSHOT, a name that ends in .png, and beside it.
func TestRealReport(t *testing.T) {
	report := os.Getenv("OSBUILD_STAR_REPORT")
	if report == "" {
		t.Skip("no OSBUILD_STAR_REPORT=FILE.html")
	}
	b := newBrowser(t)
	url := "file://" + report
	b.open(url)
	b.size(1200, 1140)
	b.is(`document.querySelectorAll(".tlb").length > 0`, "true")
	for _, dark := range []bool{true, false} {
		b.dark(dark)
		contrast(t, b)
	}
	if name, ok := strings.CutSuffix(os.Getenv("OSBUILD_STAR_SCREENSHOT"), ".png"); ok {
		for part, place := range map[string]string{"": "main", "-image": "image"} {
			b.script(fmt.Sprintf("document.getElementById(%q).scrollIntoView({behavior: 'instant'})", place), nil)
			if err := os.WriteFile(name+part+".png", b.screenshot(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.quiet(url)
}
