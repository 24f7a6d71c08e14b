"""`python -m sgl_like` is the `sgl-like` command."""

from sgl_like.cli.main import main

if __name__ == "__main__":
    main()
