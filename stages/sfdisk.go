// org.osbuild.sfdisk: writes a partition table.
package stages

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

func init() {
	Register(&Stage{
		Name:     "org.osbuild.sfdisk",
		Revision: 1,
		Summary:  "write a partition table",
		Doc: `Writes a GPT or DOS partition table to the device, with sfdisk(8). Starts and
sizes are in sectors of the device, 512 bytes as a rule; what a partition leaves out,
sfdisk chooses: the start after the partition before it, the size up to the end.

    {"label": "gpt", "uuid": "D209C89E-EA5E-4FBD-B161-B461CCE297E0",
     "partitions": [
       {"start": 2048, "size": 2048, "type": "21686148-6449-6E6F-744E-656564454649"},
       {"start": 4096, "type": "0FC63DAF-8483-4772-8E79-3D69D8477DE4", "name": "root"}]}

A random partition UUID is chosen for a GPT partition without "uuid": set it, so that
each build makes the same disk.`,
		Schema: `{
  "devices": ` + deviceSchema + `,
  "options": {
    "additionalProperties": false,
    "required": ["label", "uuid"],
    "properties": {
      "uuid": {
        "type": "string",
        "description": "identifier of the table: a UUID (gpt), or a number such as 0x14fc63d2 (dos)"
      },
      "label": {
        "type": "string",
        "enum": ["mbr", "dos", "gpt"],
        "description": "kind of partition table; mbr is another name of dos"
      },
      "partitions": {
        "type": "array",
        "description": "the partitions, in their order on the disk",
        "items": {
          "type": "object",
          "description": "one partition",
          "properties": {
            "bootable": {
              "type": "boolean",
              "description": "set the active flag (dos), or the legacy boot attribute (gpt)"
            },
            "name": {
              "type": "string",
              "description": "name of the partition (gpt)"
            },
            "partnum": {
              "type": "integer",
              "description": "number of the partition, from 1; default: the next one"
            },
            "size": {
              "type": "integer",
              "description": "length in sectors; default: all that is left"
            },
            "start": {
              "type": "integer",
              "description": "first sector; default: the first that is free and aligned"
            },
            "type": {
              "type": "string",
              "description": "type: a UUID (gpt), a hexadecimal number (dos), or a name that sfdisk knows"
            },
            "uuid": {
              "type": "string",
              "description": "UUID of the partition (gpt)"
            },
            "attrs": {
              "type": "array",
              "maxItems": 64,
              "uniqueItems": true,
              "description": "attribute bits that are set (gpt): 0 required partition, 1 no block I/O protocol, 2 legacy BIOS bootable, 48 to 63 by type",
              "items": {"type": "integer", "minimum": 0, "maximum": 63}
            }
          }
        }
      }
    }
  }
}`,
		Tools:   []string{"sfdisk"},
		InPlace: true,
		Run:     runSfdisk,
	})
}

type sfdiskOptions struct {
	UUID       string            `json:"uuid"`
	Label      string            `json:"label"`
	Partitions []sfdiskPartition `json:"partitions"`
}

// sfdiskPartition has more members in manifests than here: upstream ignores what it
// does not know in a partition, and so does [sfdiskPartition.UnmarshalJSON].
type sfdiskPartition struct {
	Bootable bool        `json:"bootable"`
	Name     string      `json:"name"`
	Partnum  json.Number `json:"partnum"`
	Size     json.Number `json:"size"`
	Start    json.Number `json:"start"`
	Type     string      `json:"type"`
	UUID     string      `json:"uuid"`
	Attrs    []int       `json:"attrs"`
}

// UnmarshalJSON reads a partition and passes over unknown members.
func (p *sfdiskPartition) UnmarshalJSON(data []byte) error {
	type plain sfdiskPartition
	return json.Unmarshal(data, (*plain)(p))
}

// script is the table in the language of sfdisk(8). device is how the partitions
// with a number name it; sfdisk looks at the digits after it only.
func (o *sfdiskOptions) script(device string) (string, error) {
	var b strings.Builder
	for what, v := range map[string]string{"label": o.Label, "uuid": o.UUID} {
		if err := safeWord(what, v); err != nil {
			return "", err
		}
	}
	fmt.Fprintf(&b, "label: %s\nlabel-id: %s\n", o.Label, o.UUID)
	for i, p := range o.Partitions {
		var fields []string
		add := func(key, value string) error {
			if strings.ContainsAny(value, "\"\n\x00") {
				return Errorf("partition %d: %s %q has a quote or a line break", i+1, key, value)
			}
			fields = append(fields, key+`="`+value+`"`)
			return nil
		}
		for _, f := range []struct{ key, value string }{
			{"start", jsonNumber(p.Start)},
			{"size", jsonNumber(p.Size)},
			{"type", p.Type},
			{"name", p.Name},
			{"uuid", p.UUID},
		} {
			number := f.key == "start" || f.key == "size"
			if f.value == "" || number && f.value == "0" {
				continue
			}
			if err := add(f.key, f.value); err != nil {
				return "", err
			}
		}
		if len(p.Attrs) > 0 {
			if err := add("attrs", gptAttrs(p.Attrs)); err != nil {
				return "", err
			}
		}
		if p.Bootable {
			fields = append(fields, "bootable")
		}
		if len(fields) == 0 {
			fields = []string{"size=+"} // an empty line is no partition
		}
		if n := jsonNumber(p.Partnum); n != "0" {
			fmt.Fprintf(&b, "%sp%s: ", device, n)
		}
		b.WriteString(strings.Join(fields, ", ") + "\n")
	}
	return b.String(), nil
}

// gptAttrs names the attribute bits as sfdisk does. Bits without a meaning (3 to
// 47) are left out.
func gptAttrs(bits []int) string {
	names := []string{"RequiredPartition", "NoBlockIOProtocol", "LegacyBIOSBootable"}
	var out []string
	for _, bit := range bits {
		switch {
		case 0 <= bit && bit < len(names):
			out = append(out, names[bit])
		case 48 <= bit && bit <= 63:
			out = append(out, strconv.Itoa(bit))
		}
	}
	return strings.Join(out, ",")
}

func runSfdisk(c *Context) error {
	var o sfdiskOptions
	if err := c.Decode(&o); err != nil {
		return err
	}
	dev, err := devicePath(c, "device")
	if err != nil {
		return err
	}
	script, err := o.script(dev)
	if err != nil {
		return err
	}
	c.Logf("%s", script)
	if err := c.Input([]byte(script), "sfdisk", "-q", "--no-tell-kernel", dev); err != nil {
		return err
	}
	raw, err := c.Output("sfdisk", "--json", dev)
	if err != nil {
		return err
	}
	c.Logf("%s", raw)
	var table struct {
		PartitionTable struct {
			Partitions []json.RawMessage `json:"partitions"`
		} `json:"partitiontable"`
	}
	if err := json.Unmarshal(raw, &table); err != nil {
		return fmt.Errorf("reading what sfdisk says of the new table: %w", err)
	}
	if got, want := len(table.PartitionTable.Partitions), len(o.Partitions); got != want {
		return Errorf("the table has %d partitions, not the %d that were asked for", got, want)
	}
	return nil
}
