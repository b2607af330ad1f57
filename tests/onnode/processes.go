package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"certrotation.dev/tests/nodes"
)

// ticks is how the kernel counts processor time for user space (USER_HZ), on every architecture of Kubernetes.
const ticks = 100

var bootTime = sync.OnceValues(func() (time.Time, error) {
	file, err := os.Open("/proc/stat")
	if err != nil {
		return time.Time{}, err
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if text, is := strings.CutPrefix(lines.Text(), "btime "); is {
			seconds, err := strconv.ParseInt(text, 10, 64)
			return time.Unix(seconds, 0), err
		}
	}
	return time.Time{}, fmt.Errorf("/proc/stat has no btime")
})

// stat gives the fields of /proc/PID/stat from the third on (proc(5)); [1] is the parent, [11] and [12] are
// processor time, [19] is the start time.
func stat(pid int) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 20 {
		return nil, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields)+2)
	}
	return fields, nil
}

// startTime is exact to a second, for the kernel tells the boot time no finer; two processes with the
// same id still differ, for start times are told to a hundredth of one.
func startTime(pid int) (time.Time, error) {
	fields, err := stat(pid)
	if err != nil {
		return time.Time{}, err
	}
	boot, err := bootTime()
	if err != nil {
		return time.Time{}, err
	}
	since, err := strconv.ParseInt(fields[19], 10, 64)
	return boot.Add(time.Duration(since) * time.Second / ticks), err
}

// services finds systemd's own children whose name is comm, with their start times. (Between fork and exec
// a child of the service has its name too, but another parent.)
func services(comm string) (map[int]time.Time, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	found := map[int]time.Time{}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		name, err := os.ReadFile("/proc/" + entry.Name() + "/comm")
		if err != nil || strings.TrimSpace(string(name)) != comm {
			continue // gone, or another
		}
		if fields, err := stat(pid); err != nil || fields[1] != "1" {
			continue
		}
		if started, err := startTime(pid); err == nil {
			found[pid] = started
		}
	}
	return found, nil
}

// followProcess tells of each process of that name. systemd takes longer to start a service again than we
// take to look.
func followProcess(t *teller, comm string, ready func()) error {
	known := map[int]time.Time{}
	first := true
	return every(200*time.Millisecond, ready, func() error {
		now, err := services(comm)
		if err != nil {
			return err
		}
		for pid, started := range known {
			if !now[pid].Equal(started) {
				t.tell(nodes.Event{What: nodes.ProcessGone, Container: comm, PID: pid, Started: started})
			}
		}
		for pid, started := range now {
			if !known[pid].Equal(started) {
				t.tell(nodes.Event{What: nodes.ProcessStarted, Container: comm, PID: pid, Started: started, Already: first})
			}
		}
		known, first = now, false
		return nil
	})
}

// followMemory tells how much the containers of a namespace use.
func followMemory(t *teller, namespace string, ready func()) error {
	return every(time.Second, ready, func() error {
		running.Lock()
		var mine []container
		for _, c := range running.byID {
			if c.Namespace == namespace {
				mine = append(mine, c)
			}
		}
		running.Unlock()
		for _, c := range mine {
			e := c.event(nodes.Memory, false)
			if measure(&e) == nil { // else it is gone just now
				t.tell(e)
			}
		}
		return nil
	})
}

func measure(e *nodes.Event) error {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", e.PID))
	if err != nil {
		return err
	}
	e.RSS, e.Anonymous = kib(text, "Rss:"), kib(text, "Anonymous:")
	fields, err := stat(e.PID)
	if err != nil {
		return err
	}
	user, err := strconv.ParseFloat(fields[11], 64)
	if err != nil {
		return err
	}
	system, err := strconv.ParseFloat(fields[12], 64)
	e.CPUSeconds = (user + system) / ticks
	return err
}

func kib(text []byte, name string) int64 {
	for _, line := range strings.Split(string(text), "\n") {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == name {
			value, _ := strconv.ParseInt(fields[1], 10, 64)
			return value
		}
	}
	return 0
}
