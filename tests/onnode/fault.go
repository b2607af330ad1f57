package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
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

// swap replaces a file for a while, to provoke what an observer must notice.
func swap(file, other, duration string) error {
	length, err := time.ParseDuration(duration)
	if err != nil {
		return err
	}
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
	if err := replace(file, replacement, info.Mode().Perm()); err != nil {
		return err
	}
	time.Sleep(length)
	return replace(file, original, info.Mode().Perm())
}

func replace(file string, content []byte, mode os.FileMode) error {
	beside := filepath.Join(filepath.Dir(file), ".swap-"+filepath.Base(file))
	if err := os.WriteFile(beside, content, mode); err != nil {
		return err
	}
	return os.Rename(beside, file)
}
