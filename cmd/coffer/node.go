package main

import "github.com/spf13/cobra"

func newNodeCmd() *cobra.Command { return &cobra.Command{Use: "node", Short: "Node commands"} }
