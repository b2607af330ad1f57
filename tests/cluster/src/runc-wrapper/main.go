// runc for machines whose root lacks CAP_SYS_RESOURCE: takes out of a container's configuration what
// only that capability allows, and then becomes runc. Called exactly as runc is.
//
// Without it, `docker run --privileged` and every `docker exec` into such a container fail with
// "unable to apply caps: operation not permitted".
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

const capability = "CAP_SYS_RESOURCE"

func main() {
	err := rewrite(os.Args[1:])
	if err == nil {
		err = becomeRunc()
	}
	fmt.Fprintf(os.Stderr, "runc-wrapper: %v\n", err)
	os.Exit(1)
}

// rewrite edits the files that runc is about to read: <bundle>/config.json for a container,
// the --process file for a process added to one.
func rewrite(args []string) error {
	if dir, ok := option(args, "--bundle", "-b"); ok {
		return edit(filepath.Join(dir, "config.json"), func(spec map[string]any) {
			if process, ok := spec["process"].(map[string]any); ok {
				restrict(process)
			}
		})
	}
	if file, ok := option(args, "--process", "-p"); ok {
		return edit(file, restrict)
	}
	return nil
}

// option finds `--name value` or `--name=value`.
func option(args []string, names ...string) (string, bool) {
	for i, arg := range args {
		for _, name := range names {
			if arg == name && i+1 < len(args) {
				return args[i+1], true
			}
			if value, ok := strings.CutPrefix(arg, name+"="); ok {
				return value, true
			}
		}
	}
	return "", false
}

// restrict removes the capability, limits that may be above ours, and a negative oomScoreAdj
// from an OCI process.
func restrict(process map[string]any) {
	delete(process, "rlimits")
	if score, ok := process["oomScoreAdj"].(json.Number); ok && strings.HasPrefix(score.String(), "-") {
		delete(process, "oomScoreAdj")
	}
	sets, _ := process["capabilities"].(map[string]any)
	for name, set := range sets {
		list, _ := set.([]any)
		kept := make([]any, 0, len(list))
		for _, c := range list {
			if c != capability {
				kept = append(kept, c)
			}
		}
		sets[name] = kept
	}
}

func edit(file string, change func(map[string]any)) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var object map[string]any
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&object); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	change(object)
	if text, err = json.Marshal(object); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(file, text, 0o600)
}

func becomeRunc() error {
	runc, err := exec.LookPath("runc")
	if err != nil {
		return err
	}
	return syscall.Exec(runc, append([]string{"runc"}, os.Args[1:]...), os.Environ())
}
