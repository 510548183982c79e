"""``python -m bench``: compare smtpguard with Postfix and with no hop at all, interleaved; print medians and ratios.

``python -m bench --mailings``: which copies count as one mailing.
``python -m bench --flood``: one mailing as thousands of transactions with one recipient each.
``python -m bench --counted``: the store alone, counting the recipients of messages to 50 customers each.
``python -m bench --lists``: customer lists of millions of people.
``python -m bench --console``: pages over 20,000 held messages.
``python -m bench --journal``: reading the whole journal, alone and beside mail.
``python -m bench --month``: an ordinary month of a company; what is held wrongly, and which dangerous mail passes.
``python -m bench --milter``: the cost of a message inside Postfix with smtpguard, with an idle milter and with none.
``python -m bench --rest``: memory of an idle guard, process by process, and the processor time of a start.
``python -m bench --house``: the size of the code, and the calls that a plain message takes.
"""

import sys

if sys.argv[1:2] == ["--mailings"]:
    from bench.mailings import main as mailings

    mailings(sys.argv[2:])
elif sys.argv[1:2] == ["--flood"]:
    from bench.flood import main as flood

    flood(sys.argv[2:])
elif sys.argv[1:2] == ["--counted"]:
    from bench.counted import main as counted

    counted(sys.argv[2:])
elif sys.argv[1:2] == ["--lists"]:
    from bench.lists import main as lists

    lists(sys.argv[2:])
elif sys.argv[1:2] == ["--console"]:
    from bench.console import main as console

    console(sys.argv[2:])
elif sys.argv[1:2] == ["--journal"]:
    from bench.journal import main as journal

    journal(sys.argv[2:])
elif sys.argv[1:2] == ["--milter"]:
    from bench.milter import main as milter

    milter(sys.argv[2:])
elif sys.argv[1:2] == ["--month"]:
    from bench.month import main as month

    month(sys.argv[2:])
elif sys.argv[1:2] == ["--house"]:
    from bench.house import main as house

    house(sys.argv[2:])
elif sys.argv[1:2] == ["--rest"]:
    from bench.through import at_rest

    at_rest(sys.argv[2:])
else:
    from bench.through import main

    main()
