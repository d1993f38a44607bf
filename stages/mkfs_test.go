package stages

import (
	"strings"
	"testing"
	"time"
)

const testUUID = "6e4ff95f-f662-45ee-a82a-bdf44a2d0b75"

func TestMkfs(t *testing.T) {
	tests := []struct {
		stage   string
		size    int64
		options map[string]any
		probe   []string // program that shows the result, without the path
		want    []string // what it must show
	}{
		{
			"org.osbuild.mkfs.ext4", 32 << 20,
			map[string]any{"uuid": testUUID, "label": "root", "verity": true, "metadata_csum_seed": true, "lazy_init": false},
			[]string{"dumpe2fs"}, []string{testUUID, "root", "verity", "metadata_csum_seed", "ITABLE_ZEROED"},
		},
		{
			"org.osbuild.mkfs.ext4", 32 << 20, map[string]any{"uuid": testUUID, "metadata_csum_seed": false},
			[]string{"dumpe2fs", "-h"}, []string{testUUID, "!metadata_csum_seed"},
		},
		{
			"org.osbuild.mkfs.xfs", 320 << 20, map[string]any{"uuid": testUUID, "label": "data", "agcount": 3},
			[]string{"blkid", "-p"}, []string{testUUID, `LABEL="data"`},
		},
		{
			"org.osbuild.mkfs.btrfs", 160 << 20, map[string]any{"uuid": testUUID, "label": "b", "metadata": "single"},
			[]string{"blkid", "-p"}, []string{testUUID, `LABEL="b"`},
		},
		{
			"org.osbuild.mkfs.fat", 64 << 20,
			map[string]any{"volid": "7B7795E7", "label": "EFI", "fat-size": 32, "geometry": map[string]any{"heads": 12, "sectors-per-track": 42}},
			[]string{"blkid", "-p"}, []string{"7B77-95E7", "FAT32", `LABEL="EFI"`},
		},
		{
			"org.osbuild.mkfs.fat", 4 << 20, map[string]any{"volid": "7B7795E7", "fat-size": 12},
			[]string{"blkid", "-p"}, []string{"FAT12"},
		},
		{
			"org.osbuild.mkswap", 4 << 20, map[string]any{"uuid": testUUID, "label": "swap0"},
			[]string{"blkid", "-p"}, []string{testUUID, `LABEL="swap0"`, `TYPE="swap"`},
		},
	}
	for _, tt := range tests {
		t.Run(tt.stage, func(t *testing.T) {
			need(t, Lookup(tt.stage).Tools...)
			c := testContext(t, tt.options)
			img := blankImage(t, c, "disk.img", tt.size)
			mustRun(t, tt.stage, c)
			out := mustOutput(t, tt.probe[0], append(tt.probe[1:], img)...)
			for _, want := range tt.want {
				absent, ok := strings.CutPrefix(want, "!")
				if ok && strings.Contains(out, absent) {
					t.Errorf("it has %q:\n%s", absent, out)
				} else if !ok && !strings.Contains(out, want) {
					t.Errorf("it has no %q:\n%s", want, out)
				}
			}
		})
	}
}

// The digest is that of upstream's result.
func TestMkswapResult(t *testing.T) {
	need(t, "mkswap")
	c := testContext(t, map[string]any{"uuid": testUUID, "label": "swap0"})
	img := blankImage(t, c, "disk.img", 4<<20)
	mustRun(t, "org.osbuild.mkswap", c)
	if got, want := sha256File(t, img), "f7881c811025cce436d0df1d0bdaca00e8a1e8c8d37d65ba102da599aee257b6"; got != want {
		t.Errorf("sha256 is %s, want %s", got, want)
	}
}

func TestMkfsReproducible(t *testing.T) {
	for stage, options := range map[string]map[string]any{
		"org.osbuild.mkfs.ext4": {"uuid": testUUID},
		"org.osbuild.mkfs.fat":  {"volid": "7B7795E7", "label": "EFI"},
	} {
		need(t, Lookup(stage).Tools...)
		var sums [2]string
		for i := range sums {
			if i > 0 {
				time.Sleep(2 * time.Second) // the times of FAT are even seconds
			}
			c := testContext(t, options)
			epoch := int64(1700000000)
			c.Meta = MetaArg{ID: "0123", SourceEpoch: &epoch}
			img := blankImage(t, c, "disk.img", 64<<20)
			mustRun(t, stage, c)
			sums[i] = sha256File(t, img)
		}
		if sums[0] != sums[1] {
			t.Errorf("%s: two runs give %s and %s", stage, sums[0], sums[1])
		}
	}
}

func TestMkfsNeedsItsDevice(t *testing.T) {
	for _, stage := range []string{
		"org.osbuild.mkfs.ext4", "org.osbuild.mkfs.xfs", "org.osbuild.mkfs.btrfs", "org.osbuild.mkfs.fat", "org.osbuild.mkswap", "org.osbuild.sfdisk",
	} {
		err := Lookup(stage).Run(testContext(t, map[string]any{}))
		if err == nil || !strings.Contains(err.Error(), `no device "device"`) {
			t.Errorf("%s without a device: %v", stage, err)
		}
	}
}
