// etcd as its own repository builds it: go.etcd.io/etcd/server is a module of its own and can be had
// from the module proxy, the program's main package can be written in one line.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
