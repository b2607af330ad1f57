package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

var signals = map[string]syscall.Signal{"KILL": syscall.SIGKILL, "TERM": syscall.SIGTERM, "STOP": syscall.SIGSTOP, "CONT": syscall.SIGCONT}

func kill(id string, name []string) error {
	signal := syscall.SIGKILL
	if len(name) > 0 {
		known := false
		if signal, known = signals[name[0]]; !known {
			return fmt.Errorf("no signal %q", name[0])
		}
	}
	c, err := readContainer(id)
	if err != nil {
		return err
	}
	return syscall.Kill(c.PID, signal)
}

// swap exchanges the content of two files, FILE's by a rename; done twice, all is as before.
func swap(file, other string) error {
	original, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	replacement, err := os.ReadFile(other)
	if err != nil {
		return err
	}
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	if err := os.WriteFile(other, original, info.Mode().Perm()); err != nil {
		return err
	}
	beside := filepath.Join(filepath.Dir(file), ".swap-"+filepath.Base(file))
	if err := os.WriteFile(beside, replacement, info.Mode().Perm()); err != nil {
		return err
	}
	return os.Rename(beside, file)
}
