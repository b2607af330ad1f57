// Onnode runs on a node of a test cluster, as root, and tells in JSON what it sees there.
//
//	onnode snapshot          every file of interest with its certificates (../snapshot)
//	onnode follow            one event per line, until standard input ends (../nodes/event.go)
//	onnode kill ID [SIGNAL]  signal the first process of a container; SIGKILL if none is named
//	onnode swap FILE OTHER   exchange the content of two files; FILE's by a rename
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"certrotation.dev/tests/snapshot"
)

func main() {
	if err := command(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "onnode:", err)
		os.Exit(1)
	}
}

func command(args []string) error {
	switch {
	case len(args) >= 1 && args[0] == "snapshot":
		return printSnapshot(args[1:])
	case len(args) == 1 && args[0] == "follow":
		return follow()
	case len(args) >= 2 && args[0] == "kill":
		return kill(args[1], args[2:])
	case len(args) == 3 && args[0] == "swap":
		return swap(args[1], args[2])
	}
	return fmt.Errorf("usage: onnode snapshot [ROOT…] | follow | kill ID [SIGNAL] | swap FILE OTHER")
}

func printSnapshot(roots []string) error {
	if len(roots) == 0 {
		roots = snapshot.Roots
	}
	node, err := snapshot.Take(roots...)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(node)
}
