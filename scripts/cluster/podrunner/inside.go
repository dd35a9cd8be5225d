package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// insideVerb is how podrunner is called to become a container.
	insideVerb = "inside"
	// cannotRun is the exit code of a container that never came to run, as a shell has it.
	cannotRun = 127
	// insideFile is the file descriptor that the description arrives at.
	insideFile = 3
)

// inside describes a container to the process that becomes it.
type inside struct {
	Namespace string // path of the network namespace
	Root      string // an empty directory: where the root is mounted
	Hostname  string
	Program   string // the image; it is /NAME in the container
	Mounts    []mount
	Argv      []string
	Env       []string
	Dir       string
}

type mount struct {
	Source, Target string
	ReadOnly       bool
}

// insideCommand is that process, not yet started: first of a PID namespace, so that its end is the
// end of all its children, and bound to die with us.
func insideCommand(description inside) (*exec.Cmd, error) {
	if err := os.MkdirAll(description.Root, 0o755); err != nil {
		return nil, err
	}
	text, err := json.Marshal(description)
	if err != nil {
		return nil, err
	}
	file, err := memoryFile(text)
	if err != nil {
		return nil, err
	}
	command := exec.Command("/proc/self/exe", insideVerb)
	command.Env = []string{}
	command.ExtraFiles = []*os.File{file}
	command.SysProcAttr = &unix.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Pdeathsig:  unix.SIGKILL,
		Setsid:     true,
	}
	return command, nil
}

// memoryFile keeps what may be secret off the disk and off the command line.
func memoryFile(text []byte) (*os.File, error) {
	descriptor, err := unix.MemfdCreate("container", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(descriptor), "container")
	if _, err := file.WriteAt(text, 0); err != nil {
		return nil, err
	}
	return file, nil
}

// enter becomes the container; it returns only if it cannot.
func enter() error {
	runtime.LockOSThread() // a namespace is a thread's until exec makes it the process's
	file := os.NewFile(insideFile, "container")
	var c inside
	if err := json.NewDecoder(io.NewSectionReader(file, 0, 1<<24)).Decode(&c); err != nil {
		return fmt.Errorf("file descriptor %d: %w", insideFile, err)
	}
	if err := file.Close(); err != nil {
		return err
	}
	if err := joinNetwork(c.Namespace); err != nil {
		return err
	}
	if err := buildRoot(&c); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(c.Hostname)); err != nil {
		return fmt.Errorf("hostname %s: %w", c.Hostname, err)
	}
	if err := changeRoot(c.Root, c.Dir); err != nil {
		return err
	}
	argv := append(asNobody(), c.Argv...)
	return fmt.Errorf("%s: %w", argv[0], unix.Exec(argv[0], argv, c.Env))
}

func joinNetwork(path string) error {
	namespace, err := os.Open(path)
	if err != nil {
		return err
	}
	defer namespace.Close()
	if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// asNobody runs what follows with no right but that to bind the ports below 1024. The kernel forgets
// the signal at our end when a process changes its user (prctl(2), PR_SET_PDEATHSIG), so it is said again.
func asNobody() []string {
	return []string{
		"/usr/bin/setpriv", "--pdeathsig=KILL", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs",
		"--inh-caps=-all,+net_bind_service", "--ambient-caps=-all,+net_bind_service",
		"--bounding-set=-all,+net_bind_service", "--",
	}
}

// buildRoot mounts a root in memory: the machine's programs and libraries, readable only, the image,
// the volumes, and nothing else of the machine. It goes with the mount namespace.
func buildRoot(c *inside) error {
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("own mounts: %w", err)
	}
	if err := unix.Mount("container", c.Root, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("%s: %w", c.Root, err)
	}
	if err := systemFolders(c.Root); err != nil {
		return err
	}
	image := mount{Source: c.Program, Target: "/" + filepath.Base(c.Program), ReadOnly: true}
	for _, m := range append([]mount{image}, c.Mounts...) {
		if err := bind(m.Source, filepath.Join(c.Root, m.Target), m.ReadOnly); err != nil {
			return err
		}
	}
	return nil
}

// systemFolders are those that programs expect anywhere.
func systemFolders(root string) error {
	if err := bind("/usr", filepath.Join(root, "usr"), true); err != nil {
		return err
	}
	for _, name := range []string{"/bin", "/sbin", "/lib", "/lib64"} {
		if err := likeTheMachines(name, filepath.Join(root, name)); err != nil {
			return err
		}
	}
	for name, mode := range map[string]os.FileMode{
		"etc": 0o755, "proc": 0o755, "dev": 0o755, "tmp": 0o777 | os.ModeSticky, "root": 0o755, "run": 0o755,
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
		if err := os.Chmod(path, mode); err != nil {
			return err
		}
	}
	for _, name := range []string{"/dev/null", "/dev/zero", "/dev/random", "/dev/urandom", "/etc/passwd", "/etc/group", "/etc/hosts"} {
		if err := bind(name, filepath.Join(root, name), strings.HasPrefix(name, "/etc")); err != nil {
			return err
		}
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
	if err := unix.Mount("proc", filepath.Join(root, "proc"), "proc", flags, ""); err != nil {
		return fmt.Errorf("/proc: %w", err)
	}
	return nil
}

// likeTheMachines makes /bin and its like what they are outside: a link into /usr, or a folder.
func likeTheMachines(name, path string) error {
	info, err := os.Lstat(name)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&os.ModeSymlink == 0 {
		return bind(name, path, true)
	}
	to, err := os.Readlink(name)
	if err != nil {
		return err
	}
	return os.Symlink(to, path)
}

// bind shows a file or folder of the machine at a path, which is made if it is not there.
func bind(source, target string, readOnly bool) error {
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	if err := mountPoint(target, info.IsDir()); err != nil {
		return err
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount %s on %s: %w", source, target, err)
	}
	if !readOnly {
		return nil
	}
	flags := uintptr(unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY)
	if err := unix.Mount("", target, "", flags, ""); err != nil {
		return fmt.Errorf("%s, for reading only: %w", target, err)
	}
	return nil
}

func mountPoint(path string, folder bool) error {
	if folder {
		return os.MkdirAll(path, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return file.Close()
}

func changeRoot(root, directory string) error {
	if err := unix.Chroot(root); err != nil {
		return fmt.Errorf("root %s: %w", root, err)
	}
	if directory == "" {
		directory = "/"
	}
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return err
	}
	return os.Chdir(directory)
}
