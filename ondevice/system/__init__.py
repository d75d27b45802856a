"""What the operating system says and is asked: cores, control groups, children, crashes."""
