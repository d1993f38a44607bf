// Sizes and ages, as people write them.
package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/osbuild-star/osbuild-star/monitor"
)

// byteSize is a size on the command line: 500M, 20G, 1.5GiB.
type byteSize struct {
	n     int64
	given bool
}

// limit is the size, -1 if none was given.
func (b *byteSize) limit() int64 {
	if !b.given {
		return -1
	}
	return b.n
}

func (b *byteSize) String() string {
	if !b.given {
		return ""
	}
	return monitor.Bytes(b.n)
}

func (b *byteSize) Type() string { return "string" }

func (b *byteSize) Set(text string) error {
	digits := strings.TrimRight(text, "BbIiKkMmGgTt ")
	unit := strings.ToUpper(strings.TrimSpace(text[len(digits):]))
	shift, ok := map[string]int{"": 0, "B": 0, "K": 10, "KB": 10, "KIB": 10, "M": 20, "MB": 20, "MIB": 20, "G": 30, "GB": 30, "GIB": 30, "T": 40, "TB": 40, "TIB": 40}[unit]
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || !ok || !(n >= 0) || n*float64(int64(1)<<shift) >= 1<<62 {
		return fmt.Errorf("%q is no size: write 500M, 20G or 1.5T", text)
	}
	*b = byteSize{int64(n * float64(int64(1)<<shift)), true}
	return nil
}

// age is a time on the command line: 12h, 30d, 2w.
type age time.Duration

func (a *age) String() string {
	if *a == 0 {
		return ""
	}
	return time.Duration(*a).String()
}

func (a *age) Type() string { return "string" }

func (a *age) Set(text string) error {
	bad := fmt.Errorf("%q is no age: write 12h, 30d or 2w", text)
	if text == "" {
		return bad
	}
	unit, ok := map[byte]time.Duration{'m': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}[text[len(text)-1]]
	n, err := strconv.Atoi(text[:len(text)-1])
	if !ok || err != nil || n <= 0 || n > 36500 {
		return bad
	}
	*a = age(time.Duration(n) * unit)
	return nil
}

// ago says how long something is ago, in one unit.
func ago(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "now"
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}
