package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"

	"certrotation.dev/tests/nodes"
)

// tasks is where containerd keeps one folder for each running container of the kubelet.
const tasks = "/run/containerd/io.containerd.runtime.v2.task/k8s.io"

// container is what the folder says.
type container struct {
	ID, Namespace, Pod, PodUID, Name, Kind string
	PID                                    int
	Started                                time.Time
}

var running struct {
	sync.Mutex
	byID map[string]container
}

// followContainers tells of every container from the moment containerd makes its folder.
func followContainers(t *teller, ready func()) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer watcher.Close()
	if err := watcher.Add(tasks); err != nil {
		return err
	}
	running.byID = map[string]container{}
	entries, err := os.ReadDir(tasks)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		appear(t, entry.Name(), true)
	}
	ready()
	for {
		select {
		case event := <-watcher.Events:
			id := filepath.Base(event.Name)
			if event.Has(fsnotify.Create) && !strings.HasPrefix(id, ".") {
				go appear(t, id, false)
			} else if event.Has(fsnotify.Remove) || event.Has(fsnotify.Rename) {
				vanish(t, id)
			}
		case err := <-watcher.Errors:
			return fmt.Errorf("containers: %w", err)
		}
	}
}

// appear waits until the folder is complete. One that goes before was never started.
func appear(t *teller, id string, already bool) {
	for {
		c, err := readContainer(id)
		if err == nil {
			if c.Kind == "container" {
				running.Lock()
				running.byID[id] = c
				running.Unlock()
				t.tell(c.event(nodes.ContainerStarted, already))
			}
			return
		}
		if _, gone := os.Stat(filepath.Join(tasks, id)); errors.Is(gone, fs.ErrNotExist) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func vanish(t *teller, id string) {
	running.Lock()
	c, known := running.byID[id]
	delete(running.byID, id)
	running.Unlock()
	if known {
		t.tell(c.event(nodes.ContainerGone, false))
	}
}

func (c *container) event(what string, already bool) nodes.Event {
	return nodes.Event{What: what, ID: c.ID, Namespace: c.Namespace, Pod: c.Pod, PodUID: c.PodUID, Container: c.Name,
		PID: c.PID, Started: c.Started, Already: already}
}

// readContainer fails as long as containerd has not written all of it.
func readContainer(id string) (container, error) {
	c := container{ID: id}
	text, err := os.ReadFile(filepath.Join(tasks, id, "config.json"))
	if err != nil {
		return c, err
	}
	var config struct {
		Annotations map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(text, &config); err != nil {
		return c, err
	}
	a := config.Annotations
	c.Kind, c.Name = a["io.kubernetes.cri.container-type"], a["io.kubernetes.cri.container-name"]
	c.Namespace, c.Pod, c.PodUID = a["io.kubernetes.cri.sandbox-namespace"], a["io.kubernetes.cri.sandbox-name"], a["io.kubernetes.cri.sandbox-uid"]
	if text, err = os.ReadFile(filepath.Join(tasks, id, "init.pid")); err != nil {
		return c, err
	}
	if c.PID, err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
		return c, err
	}
	c.Started, err = startTime(c.PID)
	return c, err
}
