package main

import (
	"fmt"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
)

func volumeNamed(volumes []corev1.Volume, name string) *corev1.Volume {
	for i := range volumes {
		if volumes[i].Name == name {
			return &volumes[i]
		}
	}
	return nil
}

// writeVolume puts a volume's files into a directory. It is done at each start of a container; a
// Secret that changes later reaches a container when that is started again.
func writeVolume(volume *corev1.Volume, directory string, from objects) error {
	files, err := volumeFiles(volume, from)
	if err != nil {
		return fmt.Errorf("volume %s: %w", volume.Name, err)
	}
	mode := os.FileMode(0o755)
	if volume.EmptyDir != nil {
		mode = 0o777
	}
	if err := os.MkdirAll(directory, mode); err != nil {
		return err
	}
	if err := os.Chmod(directory, mode); err != nil {
		return err
	}
	for name, content := range files {
		path := filepath.Join(directory, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		// Containers run as nobody, and would run as root in an ordinary cluster.
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// volumeFiles are the files of a volume by their path in it.
func volumeFiles(volume *corev1.Volume, from objects) (map[string][]byte, error) {
	switch {
	case volume.EmptyDir != nil:
		return nil, nil
	case volume.Secret != nil:
		data, err := from.secret(volume.Secret.SecretName)
		if err != nil {
			return nil, err
		}
		return project(data, volume.Secret.Items, volume.Secret.Optional, "Secret "+volume.Secret.SecretName)
	case volume.ConfigMap != nil:
		data, err := from.configMap(volume.ConfigMap.Name)
		if err != nil {
			return nil, err
		}
		return project(data, volume.ConfigMap.Items, volume.ConfigMap.Optional, "ConfigMap "+volume.ConfigMap.Name)
	}
	return nil, notHere("volumes other than Secret, ConfigMap and emptyDir")
}

// project is a file for each key, or for each item if there are any.
func project(data map[string][]byte, items []corev1.KeyToPath, optional *bool, what string) (map[string][]byte, error) {
	if data == nil {
		if isTrue(optional) {
			return nil, nil
		}
		return nil, fmt.Errorf("%s is not there", what)
	}
	if len(items) == 0 {
		return data, nil
	}
	files := map[string][]byte{}
	for _, item := range items {
		content, there := data[item.Key]
		switch {
		case !there && !isTrue(optional):
			return nil, fmt.Errorf("%s has no key %s", what, item.Key)
		case !filepath.IsLocal(item.Path): // the API server refuses it, too
			return nil, fmt.Errorf("%s: path %s leaves the volume", what, item.Path)
		case there:
			files[item.Path] = content
		}
	}
	return files, nil
}
