from taskrobust.cli import main

main()
