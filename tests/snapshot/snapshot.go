// Package snapshot describes what a node holds on disk: every file under some folders, and every
// certificate and public key in them, wherever it stands: in PEM, or in base64 inside a kubeconfig or
// any other text.
//
// Invariants:
//   - Nothing private leaves the node: of a private key only its public half's hash is told.
//   - A folder or file that cannot be read is an error, never an empty answer. One that vanishes while
//     we look (a pod's volume) is left out.
//   - What is in a file is read from the file's own bytes; nothing is guessed from names.
package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// File is one file, folder or symbolic link.
type File struct {
	Path         string        `json:"path"`
	Type         string        `json:"type"` // file, dir, link, other
	Mode         string        `json:"mode"` // permission bits, octal
	UID          uint32        `json:"uid"`
	GID          uint32        `json:"gid"`
	Size         int64         `json:"size,omitempty"`
	SHA256       string        `json:"sha256,omitempty"`
	Target       string        `json:"target,omitempty"` // of a link
	Certificates []Certificate `json:"certificates,omitempty"`
	Keys         []Key         `json:"keys,omitempty"`
}

// Node is all that was found on one node.
type Node struct {
	Name  string `json:"name,omitempty"`
	Files []File `json:"files"`
}

// Roots is where kubeadm and the kubelet keep what a rotation may change.
var Roots = []string{"/etc/kubernetes", "/var/lib/kubelet"}

// maxFile is the size above which a file is listed without a look inside; no certificate file comes near.
const maxFile = 4 << 20

// Take looks at everything under the roots. A root that does not exist is an error.
func Take(roots ...string) (*Node, error) {
	node := &Node{}
	for _, root := range roots {
		if _, err := os.Lstat(root); err != nil {
			return nil, err
		}
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			return node.visit(path, entry, err)
		})
		if err != nil {
			return nil, err
		}
	}
	return node, nil
}

// visit takes one entry. Of pods' folders only volumes that hold the cluster's CA matter.
func (n *Node) visit(path string, entry fs.DirEntry, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if inPod(path) {
		return n.visitPod(path, entry)
	}
	file, err := describe(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		n.Files = append(n.Files, *file)
	}
	return err
}

const pods = "/var/lib/kubelet/pods/"

func inPod(path string) bool { return strings.HasPrefix(path, pods) }

// volumeKinds are the volumes that can hold a published CA, by the kubelet's folder names.
var volumeKinds = []string{"kubernetes.io~projected", "kubernetes.io~configmap", "kubernetes.io~secret"}

// visitPod keeps the visible files of those volumes: "..data" and its like are how they are stored.
func (n *Node) visitPod(path string, entry fs.DirEntry) error {
	parts := strings.Split(strings.TrimPrefix(path, pods), "/")
	subpath := len(parts) > 1 && parts[1] == "volume-subpaths" // single files bound into a container
	if len(parts) == 2 && parts[1] != "volumes" && !subpath {
		return skip(entry)
	}
	if len(parts) == 3 && !subpath && !oneOf(parts[2], volumeKinds) {
		return skip(entry)
	}
	if len(parts) < 5 || subpath && entry.IsDir() {
		return nil
	}
	if strings.HasPrefix(parts[4], "..") || entry.IsDir() {
		return skip(entry)
	}
	file, err := describe(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && len(file.Certificates) > 0 {
		n.Files = append(n.Files, *file)
	}
	return err
}

func skip(entry fs.DirEntry) error {
	if entry.IsDir() {
		return fs.SkipDir
	}
	return nil
}

func oneOf(word string, list []string) bool {
	for _, have := range list {
		if word == have {
			return true
		}
	}
	return false
}

func describe(path string) (*File, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, fmt.Errorf("%s: no owner is known", path)
	}
	file := &File{Path: path, Type: "other", Mode: fmt.Sprintf("%04o", info.Mode().Perm()), UID: stat.Uid, GID: stat.Gid}
	switch {
	case info.IsDir():
		file.Type = "dir"
		return file, nil
	case info.Mode()&fs.ModeSymlink != 0:
		file.Type = "link"
		if file.Target, err = os.Readlink(path); err != nil {
			return nil, err
		}
	case info.Mode().IsRegular():
		file.Type, file.Size = "file", info.Size()
	default:
		return file, nil
	}
	return file, file.look()
}

// look reads what the file, or what a link points to, holds.
func (f *File) look() error {
	info, err := os.Stat(f.Path)
	if err != nil || !info.Mode().IsRegular() {
		return ignoreDangling(f, err)
	}
	if info.Size() > maxFile {
		return nil
	}
	text, err := os.ReadFile(f.Path)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(text)
	f.SHA256 = hex.EncodeToString(sum[:])
	if bytes.IndexByte(text, 0) >= 0 {
		return nil // not text
	}
	if f.Certificates, f.Keys, err = Inspect(text); err != nil {
		return fmt.Errorf("%s: %w", f.Path, err)
	}
	return nil
}

func ignoreDangling(f *File, err error) error {
	if f.Type == "link" && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
