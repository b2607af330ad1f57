package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"certrotation.dev/tests/nodes"
	"certrotation.dev/tests/snapshot"
)

// followFiles tells of each change of content in the folders that hold certificates. nudge wakes the
// observer of servers, which looks more often for a while.
func followFiles(t *teller, nudge chan<- struct{}, ready func()) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer watcher.Close()
	f := &files{t: t, watcher: watcher, hashes: map[string]string{}, already: true}
	for _, folder := range []string{"/etc/kubernetes", "/var/lib/kubelet/pki"} {
		if err := f.add(folder); err != nil {
			return err
		}
	}
	if err := f.one("/var/lib/kubelet/config.yaml"); err != nil {
		return err
	}
	f.already = false
	ready()
	for {
		select {
		case event := <-watcher.Events:
			select {
			case nudge <- struct{}{}:
			default:
			}
			if err := f.changed(event.Name); err != nil {
				return err
			}
		case err := <-watcher.Errors:
			return fmt.Errorf("files: %w", err)
		}
	}
}

type files struct {
	t       *teller
	watcher *fsnotify.Watcher
	hashes  map[string]string
	already bool
}

// add watches a folder and all below.
func (f *files) add(folder string) error {
	return filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return f.watcher.Add(path)
		}
		return f.one(path)
	})
}

func (f *files) changed(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, known := f.hashes[path]; known {
			delete(f.hashes, path)
			f.t.tell(nodes.Event{What: nodes.FileGone, Path: path})
		}
		return nil
	case err != nil:
		return err
	case info.IsDir():
		return f.add(path)
	}
	return f.one(path)
}

// one tells of a file whose content is new. Names that begin with a dot are others' unfinished writes.
func (f *files) one(path string) error {
	if strings.HasPrefix(filepath.Base(path), ".") {
		return nil
	}
	at := time.Now()
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	sum := sha256.Sum256(text)
	hash := hex.EncodeToString(sum[:])
	if f.hashes[path] == hash {
		return nil
	}
	f.hashes[path] = hash
	certificates, _, err := snapshot.Inspect(text)
	if err != nil {
		certificates = nil // half written; the end of the write comes as another event
	}
	f.t.tell(nodes.Event{At: at, What: nodes.FileChanged, Path: path, SHA256: hash, Certificates: brief(certificates), Already: f.already})
	return nil
}

// brief leaves out what the stream of events does not need.
func brief(list []snapshot.Certificate) []snapshot.Certificate {
	for i := range list {
		list[i].DER, list[i].Names, list[i].Usages = nil, nil, nil
	}
	return list
}

// followVolumes tells when the CA in a pod's volume changes.
func followVolumes(t *teller, ready func()) error {
	known := map[string]string{}
	already := true
	return every(500*time.Millisecond, ready, func() error {
		paths, err := filepath.Glob("/var/lib/kubelet/pods/*/volumes/kubernetes.io~projected/*/ca.crt")
		if err != nil {
			return err
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil || known[path] == string(text) {
				continue // gone just now, or as before
			}
			known[path] = string(text)
			certificates, _, err := snapshot.Inspect(text)
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			t.tell(nodes.Event{What: nodes.VolumeChanged, Path: path, PodUID: strings.Split(path, "/")[5], Certificates: brief(certificates), Already: already})
		}
		already = false
		return nil
	})
}
