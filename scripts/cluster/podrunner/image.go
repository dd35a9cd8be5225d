package main

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// imageName is the last part of an image's path, without tag and digest.
func imageName(image string) (string, error) {
	name, _, _ := strings.Cut(image, "@")
	name = path.Base(name) // a registry's port is before it
	name, _, _ = strings.Cut(name, ":")
	if name == "" || strings.HasPrefix(name, ".") || strings.HasSuffix(image, "/") {
		return "", refusal{"InvalidImageName", fmt.Sprintf("%q is no name of an image", image)}
	}
	return name, nil
}

// programOf is the program that an image stands for.
func programOf(images, image string) (string, error) {
	name, err := imageName(image)
	if err != nil {
		return "", err
	}
	program := filepath.Join(images, name)
	if info, err := os.Stat(program); err != nil || !info.Mode().IsRegular() {
		return "", refusal{"ErrImagePull", fmt.Sprintf("%s: no program %s: images are programs here", image, program)}
	}
	return program, nil
}
