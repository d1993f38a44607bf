// Sizes and ages are read as people write them.
package main

import (
	"testing"
	"time"
)

func TestCacheMaxSizes(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1024": 1024, "500M": 500 << 20, "20G": 20 << 30, "1.5T": 3 << 39, "2GiB": 2 << 30, "3 kb": 3 << 10, "7B": 7,
		"": -1, "G": -1, "-5G": -1, "5X": -1, "5 5G": -1, "NaN": -1, "1e30": -1, "99999999T": -1,
	} {
		var b byteSize
		if err := b.Set(text); (err == nil) != (want >= 0) || b.limit() != want {
			t.Errorf("%q: %d, %v, want %d", text, b.limit(), err, want)
		}
	}
}

func TestAge(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"90m": 90 * time.Minute, "12h": 12 * time.Hour, "30d": 720 * time.Hour, "2w": 336 * time.Hour,
		"": 0, "5": 0, "d": 0, "0d": 0, "-1d": 0, "1y": 0, "99999999w": 0,
	} {
		var a age
		if err := a.Set(text); (err == nil) != (want > 0) || time.Duration(a) != want {
			t.Errorf("%q: %v, %v, want %v", text, time.Duration(a), err, want)
		}
	}
}
