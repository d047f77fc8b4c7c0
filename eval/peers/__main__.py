from semisparse.eval.peers.main import main

main()
